#!/usr/bin/env bash
# Works through experiments under one time budget and packs the records that are new into one archive, to be unpacked
# into another machine's results folder. Finished runs, also those copied from elsewhere, are skipped; what the budget
# leaves over is taken up by the next call.
#
#   scripts/run_table.sh BUDGET ARCHIVE EXPERIMENT... [-- OVERRIDE...]
#   scripts/run_table.sh 25m new.tar.gz tvlars_audit fig3_norms -- data.root=/data
#   tar xzf new.tar.gz -C results && lbt tables && lbt audit
#
# BUDGET as in time_budget: no run starts later than this, one that has started ends (so allow for a run's length).
# ARCHIVE is written after every experiment, and on TERM or INT, too: runs that came to an end, below runs/.
# JOBS=3 works with three processes side by side on the same grid: small networks leave a large GPU idle. The figures
# do not depend on it, the times in the records do. LBT is the command, "lbt" unless set: LBT="python -m lbt".
# The exit code is the largest of the sweeps'.
set -euo pipefail

usage() { sed -n 's/^# \{0,1\}//; 2,14p' "$0" >&2; exit 2; }

experiments=() overrides=() results=results
[ $# -ge 3 ] || usage
budget=$1 archive=$2
shift 2
while [ $# -gt 0 ] && [ "$1" != -- ]; do experiments+=("$1"); shift; done
[ ${#experiments[@]} -gt 0 ] || usage
if [ $# -gt 0 ]; then shift; overrides=("$@"); fi
for override in ${overrides[@]+"${overrides[@]}"}; do
  case $override in results_dir=*) results=${override#results_dir=} ;; esac
done
read -r -a lbt <<<"${LBT:-lbt}"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
touch "$scratch/start"
LBT_SWEEP_STARTED=$(date +%s) # one clock for all the experiments
export LBT_SWEEP_STARTED

pack() {
  : >"$scratch/new"
  [ ! -d "$results/runs" ] || find "$results/runs" -name '*.jsonl' -newer "$scratch/start" | sort |
    while IFS= read -r record; do
      if tail -n 1 "$record" | grep -Eq '"kind": "end", "status": "(done|diverged|oom|failed)"'; then
        printf '%s\n' "${record#"$results"/}"
      fi
    done >"$scratch/new"
  mkdir -p "$results" "$(dirname "$archive")"
  tar czf "$scratch/archive" -C "$results" -T "$scratch/new"
  mv "$scratch/archive" "$archive"
}

children=()
stop() { # an interrupted run keeps its checkpoint, so that the same call goes on with it
  trap '' INT TERM
  kill -TERM "${children[@]}" 2>/dev/null || true
  wait "${children[@]}" || true
  pack
  exit "$1"
}
trap 'stop 143' TERM
trap 'stop 130' INT

worst=0
for experiment in "${experiments[@]}"; do
  echo "== $experiment"
  children=()
  for ((job = 0; job < ${JOBS:-1}; job++)); do
    "${lbt[@]}" train -m "+experiment=$experiment" "time_budget=$budget" ${overrides[@]+"${overrides[@]}"} &
    children+=($!)
  done
  for child in "${children[@]}"; do
    code=0
    wait "$child" || code=$?
    if [ "$code" -gt "$worst" ]; then worst=$code; fi
  done
  children=()
  pack
done
echo "$(wc -l <"$scratch/new" | tr -d ' ') new records in $archive"
exit "$worst"
