#!/usr/bin/env bash
# Spends a few minutes of one GPU on what is worth most, in order, and packs what it found into one archive:
#   1. the tests that need CUDA, the optimizers' kernels first      -> gpu/tests_*.txt
#   2. bench_gpu.py and bench_optimizers.py                         -> gpu/bench_*.txt
#   3. runs of 100 epochs, the most telling first                   -> runs/<experiment>/*.jsonl
# Nothing begins after the budget, and what the first two parts may take is bounded. Finished runs are skipped.
#
#   scripts/run_gpu.sh BUDGET ARCHIVE [--smoke] [-- OVERRIDE...]
#   scripts/run_gpu.sh 9m new.tgz -- data.root=/data
#   tar xzf new.tgz -C results && lbt tables && lbt plots && lbt audit
#
# BUDGET is a number of minutes, 9m. --smoke tries all of it at a size that a CPU does in a minute or two. PYTHON and
# LBT are the commands, "python3" and "python3 -m lbt" unless set; EXPERIMENTS names others than the ones below.
# The exit code is 1 where a test failed: the archive is written all the same.
set -euo pipefail

usage() { sed -n 's/^# \{0,1\}//; 2,16p' "$0" >&2; exit 2; }

[ $# -ge 2 ] || usage
[[ $1 =~ ^([1-9][0-9]*)m$ ]] || usage
minutes=${BASH_REMATCH[1]} archive=$2
shift 2
smoke=
if [ "${1:-}" = --smoke ]; then smoke=1; shift; fi
if [ "${1:-}" = -- ]; then shift; elif [ $# -gt 0 ]; then usage; fi
overrides=("$@")

here=$(cd "$(dirname "$0")/.." && pwd)
read -r -a python <<<"${PYTHON:-python3}"
export LBT=${LBT:-${python[*]} -m lbt} PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}
experiments=${EXPERIMENTS:-tvlars_readings_ladder tvlars_readings tvlars_audit_lars_lamb tvlars_audit_nowa tvlars_table1_cifar10_clf tvlars_audit}
began=$(date +%s)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/gpu"
worst=0

left() { echo $((began + 60 * minutes - $(date +%s))); }

part() { # part NAME SECONDS COMMAND...: at most so long, its output kept
  local name=$1 limit=$2
  shift 2
  if [ "$(left)" -le 0 ]; then echo "== $name: no time left"; return; fi
  echo "== $name ($(left) s left)"
  local code=0
  timeout --signal=INT --kill-after=10 "$limit" "$@" >"$work/gpu/$name.txt" 2>&1 || code=$?
  tail -n 4 "$work/gpu/$name.txt"
  case $name in tests_*) if [ "$code" -ne 0 ] && [ "$code" -ne 5 ]; then worst=1; fi ;; esac # 5: nothing to test
}

tests=("${python[@]}" -m pytest -q -m cuda -p no:cacheprovider -o addopts=) # one process, with and without xdist
part tests_optimizers 150 "${tests[@]}" "$here/tests/optim"
part tests_training 60 "${tests[@]}" "$here/tests/train" "$here/tests/data"
if [ -n "$smoke" ]; then
  part bench_gpu 120 "${python[@]}" "$here/scripts/bench_gpu.py" --smoke
  part bench_optimizers 120 "${python[@]}" "$here/scripts/bench_optimizers.py" --models resnet18 --rounds 1 --devices cpu
  experiments=quickstart
  overrides+=(seed=0 lr=0.1 batch=1024 epochs=1)
else
  part bench_gpu 120 "${python[@]}" "$here/scripts/bench_gpu.py" --minutes 1.5 --cifar synthetic
  part bench_optimizers 60 "${python[@]}" "$here/scripts/bench_optimizers.py" --models resnet50 --rounds 5 --devices cuda
fi

pack() {
  mkdir -p "$(dirname "$archive")"
  tar czf "$archive.part" -C "$work" .
  mv "$archive.part" "$archive"
}
pack # what was measured is there, whatever becomes of the trainings

records=$work/records.tgz
read -r -a experiments <<<"$experiments"
seconds=$(left)
if [ "$seconds" -gt 0 ]; then
  # A run that is in the midst of it when the time is up is stopped; its checkpoint stays here, the others are packed.
  timeout --signal=TERM --kill-after=20 "$seconds" \
    "$here/scripts/run_table.sh" "${seconds}s" "$records" "${experiments[@]}" -- ${overrides[@]+"${overrides[@]}"} || true
  if [ -f "$records" ]; then tar xzf "$records" -C "$work"; fi
  rm -f "$records"
fi
pack
echo "$archive: $(tar tzf "$archive" | grep -c '\.jsonl$' || true) records"
exit "$worst"
