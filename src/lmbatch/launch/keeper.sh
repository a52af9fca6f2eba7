# Runs a container for one task of a job, and leaves none behind. usage: bash -c THIS NAME podman|docker OPTIONS…
# Slurm signals every process of a task, so the program gets the signals itself and passes them on to the container.
runtime=$1; shift
name=lmbatch-${SLURM_JOB_ID:-0}-${SLURM_RESTART_COUNT:-0}-${SLURM_STEP_ID:-0}-${SLURM_PROCID:-$$}
# After SIGTERM Slurm's SIGKILL follows in KillWait seconds, and the container would outlive it.
remove_before_kill() {
  seconds=$(scontrol show config 2>/dev/null | sed -n 's/^KillWait *= *\([0-9]*\).*/\1/p')
  seconds=${seconds:-30}
  sleep $((seconds > 20 ? seconds - 5 : seconds - 2))
  remove
}
remove() { "$runtime" kill "$name"; "$runtime" rm --force "$name"; }
terminated='' timer=''
trap : INT USR1 USR2
trap 'terminated=yes' TERM
"$runtime" run --name "$name" --label "lmbatch.job=${SLURM_JOB_ID:-0}" "$@" &
child=$!
wait "$child"; code=$?
while [ "$code" -gt 128 ] && kill -0 "$child" 2>/dev/null; do
  if [ -n "$terminated" ] && [ -z "$timer" ]; then remove_before_kill >/dev/null 2>&1 & timer=$!; fi
  wait "$child"; code=$?
done
# A signal may have ended the last wait just when the child ended: bash remembers how that was.
[ "$code" -le 128 ] || { wait "$child"; code=$?; }
[ -z "$timer" ] || kill "$timer" 2>/dev/null
# 125 and more: the program failed, or something was killed. In all other cases --rm has removed it.
[ "$code" -lt 125 ] || remove >/dev/null 2>&1
exit "$code"
