#!/usr/bin/env bash
# Tries lbt under a real Slurm of one node, this machine: starts a controller and a node daemon of its own (root; Debian's
# slurm-wlm and munge), submits one training of two tasks, has it requeued in the middle, and compares with one process.
#   scripts/try_slurm.sh [FOLDER]     leaves configuration, logs and results in FOLDER; a new temporary one by default
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
folder=$(realpath -m "${1:-$(mktemp -d)}")
python=${PYTHON:-python}
mkdir -p "$folder"/{state,spool,run}
host=$(hostname -s)

cat >"$folder/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
KillWait=60
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$folder/slurm.conf PYTHONPATH=$here OMP_NUM_THREADS=1

stop() {
    scancel --quiet --user=root 2>/dev/null || true
    for daemon in slurmd slurmctld; do
        [[ ! -s $folder/$daemon.pid ]] || kill "$(cat "$folder/$daemon.pid")" 2>/dev/null || true
    done
}
trap stop EXIT

pgrep -x munged >/dev/null || { mkdir -p /run/munge && chown munge: /run/munge && su -s /bin/sh munge -c munged; }
slurmctld -c
slurmd
for _ in {1..60}; do
    [[ $(sinfo -h -o %T 2>/dev/null) != idle ]] || break
    sleep 0.5
done
sinfo

# --- one training of two tasks, requeued once, against one process
words=(data=digits model=resnet18 model.norm=group batch=64 epochs=8 precision=fp32 device=cpu optimizer=lars seed=7)
cat >"$folder/job.sh" <<JOB
#!/bin/bash
#SBATCH --ntasks=2 --cpus-per-task=1 --requeue --open-mode=append --output=$folder/job.log
srun --kill-on-bad-exit=0 "$python" -m lbt train ${words[*]} devices=2 results_dir=$folder/two
JOB
job=$(sbatch --parsable "$folder/job.sh")
until ls "$folder"/two/work/*.pt >/dev/null 2>&1 || [[ -z $(squeue -h -j "$job") ]]; do sleep 0.5; done
scontrol requeue "$job"
while [[ -n $(squeue -h -j "$job") ]]; do sleep 1; done # Slurm lets a requeued job wait for about two minutes
cat "$folder/job.log"
"$python" -m lbt train "${words[@]}" results_dir="$folder/one"
"$python" - "$folder" <<'PYTHON'
import json, pathlib, sys

ends = {}
for name in ("one", "two"):
    [record] = pathlib.Path(sys.argv[1], name).glob("runs/*/*.jsonl")
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    ends[name] = (record.stem, lines[-1]["status"], lines[-1]["summary"]["train_loss"], lines[0]["provenance"].get("devices"))
    print(name, *ends[name])
assert ends["one"][:2] == ends["two"][:2], "not the same run, or not done"
assert abs(ends["one"][2] - ends["two"][2]) < 0.1 * ends["one"][2], "not the same training"  # rounding grows
PYTHON
