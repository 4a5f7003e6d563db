#!/bin/sh
# run.sh SECONDS PYTHON TARGET…: the fuzzers and oracle.py side by side, in the directory where the targets were built.
# The rule it keeps: nothing that it starts outlives it. Whoever ends it early (Ctrl-C, a terminal that is closed, kill) is told that
# nothing has been proved; without this, make says only "wait: No child processes" of a hangup, and the oracle runs on.
set -u
here=$(cd "$(dirname "$0")" && pwd)
seconds=$1 python=$2
shift 2
case $seconds in
'' | *[!0-9]* | 0)
    echo "make fuzz: \"$seconds\" is no number of seconds above 0" >&2
    exit 2
    ;;
esac

jobs=''
end() {
    trap '' HUP INT TERM
    for job in $jobs; do kill "${job#*:}" 2>/dev/null; done
    wait
    echo "fuzzing ended early by SIG$1: nothing is proved. For a long run without a terminal: nohup make fuzz FUZZ_SECONDS=3600 &" >&2
    exit 1
}
for signal in HUP INT TERM; do
    # shellcheck disable=SC2064  # the name of now
    trap "end $signal" "$signal"
done

for target in "$@"; do
    mkdir -p "corpus/$target" "broken/$target"
    found=$here/found/$target
    [ -d "$found" ] || found=
    ./"$target" -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="broken/$target/" "corpus/$target" "seeds/$target" ${found:+"$found"} >"$target.log" 2>&1 &
    jobs="$jobs $target:$!"
    echo "fuzzing $target for $seconds s"
done
"$python" "$here/oracle.py" "$seconds" >oracle.log 2>&1 &
oracle=$!
jobs="$jobs oracle:$oracle"
echo "running programs against the model for $seconds s"

failed=0
for target in "$@"; do
    for job in $jobs; do [ "${job%%:*}" = "$target" ] && break; done
    if wait "${job#*:}"; then
        echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$target.log") inputs, none breaks it"
    else
        failed=1
        tail -n 40 "$target.log"
        echo "$target: BROKEN, see $PWD/$target.log and $PWD/broken/$target"
    fi
done
wait "$oracle" || failed=1
echo "oracle: $(tail -n 20 oracle.log)"
exit $failed
