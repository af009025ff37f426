#!/usr/bin/env bash
# Tries lbt under a real Slurm of one node, this machine: starts a controller and a node daemon of its own (root; Debian's
# slurm-wlm and munge), submits one training of two tasks, has it requeued in the middle, does the same through Hydra's
# launcher (pip install hydra-submitit-launcher), and compares both with one process.
#   scripts/try_slurm.sh [FOLDER [srun|hydra]]     leaves configuration, logs and results in FOLDER; a new temporary one by
#                                                  default; tries one of the two alone
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
folder=$(realpath -m "${1:-$(mktemp -d)}")
ways=${2:-srun hydra}
python=${PYTHON:-python}
mkdir -p "$folder"/{state,spool,run,bin}
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
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(env -u OMP_NUM_THREADS nproc) State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$folder/slurm.conf PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} OMP_NUM_THREADS=1

# This Slurm keeps no accounts; the launcher asks them how its job is.
printf '#!/bin/sh\necho "JobID|State|NodeList"; squeue -h -o "%%A|%%T|%%N"\n' >"$folder/bin/sacct"
chmod +x "$folder/bin/sacct"
PATH=$folder/bin:$PATH

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

words=(data=digits data.subset=300 model=resnet18 model.norm=group batch=60 epochs=10 precision=fp32 device=cpu optimizer=lars seed=7)

begun() { [[ -n $(find "$folder/$1/runs" -name '*.jsonl' 2>/dev/null) ]]; }
ended() { [[ -z $(squeue -h -j "$1") ]]; }
soon() { scontrol update job="$1" StartTime=now 2>/dev/null || true; } # Slurm lets a requeued job wait for two minutes

# --- one training of two tasks, requeued once
by_srun() {
    cat >"$folder/job.sh" <<JOB
#!/bin/bash
#SBATCH --ntasks=2 --cpus-per-task=1 --requeue --open-mode=append --output=$folder/job.log
srun --kill-on-bad-exit=0 "$python" -m lbt train ${words[*]} devices=2 results_dir=$folder/srun
JOB
    job=$(sbatch --parsable "$folder/job.sh")
    until begun srun || ended "$job"; do sleep 0.5; done
    sleep 5
    scontrol requeue "$job"
    until ended "$job"; do soon "$job"; sleep 2; done
    cat "$folder/job.log"
}

# --- the same by Hydra's launcher (hydra-submitit-launcher), which requeues its job when Slurm says that time is up
by_hydra() {
    "$python" -m lbt train -m "${words[@]}" devices=2 results_dir="$folder/hydra" hydra/launcher=submitit_slurm \
        hydra.launcher.tasks_per_node=2 hydra.launcher.cpus_per_task=1 hydra.launcher.submitit_folder="$folder/submitit" &
    until begun hydra || ! kill -0 $! 2>/dev/null; do sleep 0.5; done
    sleep 5
    job=$(squeue -h -o %A)
    scancel --signal=USR2 "$job"
    until ended "$job"; do soon "$job"; sleep 2; done
    wait $!
    tail -n +1 "$folder"/submitit/*.out
}

for way in $ways; do "by_$way"; done

# --- against one process
"$python" -m lbt train "${words[@]}" results_dir="$folder/one"
"$python" - "$folder" one $ways <<'PYTHON'
import json, pathlib, sys

ends, losses = {}, {}
for name in sys.argv[2:]:
    [record] = pathlib.Path(sys.argv[1], name).glob("runs/*/*.jsonl")
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    losses[name] = [line["train_loss"] for line in lines[1:-1]]
    ends[name] = (record.stem, lines[-1]["status"], lines[0]["provenance"].get("devices", 1))
    print(name, *ends[name], *(f"{loss:.4g}" for loss in losses[name]))
_, *ways = losses
for name in ways:
    assert ends[name] == (*ends["one"][:2], 2) and ends[name][1] == "done", "not the same run, not done, or not by two tasks"
    assert losses[name] == losses[ways[0]], "interrupted elsewhere, it is another training"
    assert abs(losses[name][0] / losses["one"][0] - 1) < 1e-5, "not one process's training"  # fp32's rounding grows
PYTHON
