#!/bin/bash
# Starts TOMAAT workers as jobs of Slurm, as many as predictions wait and at most MAX at a time. It ends none: workers end by
# themselves when idle. Run it every minute, for example from cron:
#   * * * * *  /shared/tomaat/slurm/scale.sh /shared/tomaat/prostate.conf
# If the server or Slurm does not answer, it changes nothing and exits with 1.
set -euo pipefail

fail() {
  echo "scale.sh: $*" >&2
  exit 1
}
[ $# = 1 ] || fail 'Give one argument: the file of settings (see tomaat.conf).'
source "$(readlink -f "$1")"
for name in SERVER METRICS_KEY_FILE WORKER_KEY_FILE SERVICE APP TOMAAT MAX IDLE_EXIT; do
  [ -n "${!name:-}" ] || fail "$1 does not set $name."
done
[[ "$MAX" =~ ^[1-9][0-9]{0,3}$ ]] || fail "MAX is “$MAX”. Give a whole number from 1 to 9999."
[ -r "$METRICS_KEY_FILE" ] || fail "METRICS_KEY_FILE $METRICS_KEY_FILE cannot be read."

# Two at a time would both see the same queue. The file of settings is the lock.
exec 9>>"$1"
flock --nonblock 9 || exit 0

# The key goes through a pipe, because arguments can be read by other users.
metrics="$(curl -fsS --max-time 20 ${CA:+--cacert "$CA"} \
  -H @<(printf 'authorization: Bearer %s\n' "$(<"$METRICS_KEY_FILE")") "$SERVER/metrics")" ||
  fail "$SERVER/metrics does not answer. Nothing was changed."
count() {
  local found
  found="$(awk -v want="tomaat_service_jobs{service=\"$SERVICE\",state=\"$1\"}" '$1 == want { print $2 }' <<<"$metrics")"
  [[ "$found" =~ ^[0-9]{1,9}$ ]] || fail "$SERVER does not serve $SERVICE. Set SERVICE to the id of one of its services."
  echo "$found"
}
queued="$(count queued)"
running="$(count running)"

name="tomaat-$SERVICE"
# A line for each task of the arrays: its state.
states="$(squeue --noheader --array --user="$(id -un)" --name="$name" --format=%t)" ||
  fail 'squeue does not answer. Nothing was changed.'
tasks() { grep -cE "^($1)\$" <<<"$states" || true; }
all="$(tasks '[A-Z]+')"
pending="$(tasks 'PD|CF')"
started="$(tasks 'R')"

# Workers without a prediction will take one: those that have not started, and those that run beyond the running predictions. (Predictions
# that run elsewhere make this less than it is; MAX holds all the same.)
free=$((pending + (started > running ? started - running : 0)))
wanted=$((queued - free))
room=$((MAX - all))
((wanted <= room)) || wanted=$room
((wanted > 0)) || exit 0
id="$(sbatch --parsable --job-name="$name" --array="0-$((wanted - 1))" "${SBATCH[@]}" \
  "$(dirname "$(readlink -f "$0")")/worker.sbatch" "$(readlink -f "$1")")" || fail 'sbatch refused the workers.'
echo "$(date +%FT%T) $queued waiting, $all workers: started $wanted more as job $id"
