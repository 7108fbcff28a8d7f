# shellcheck shell=bash
# Processes in the background, known by pid and start time, so that a pid used again is never taken for ours.

# start_time PID prints when it started, in clock ticks since boot; fails when it is gone or a zombie.
start_time() {
    local stat fields
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # The second field is the program's name in parentheses and may contain spaces.
    read -ra fields <<<"${stat##*) }"
    [[ ${fields[0]} != Z ]] || return 1
    echo "${fields[19]}"
}

# spawn NAME NETNS COMMAND... (NETNS `none`: where the script runs)
spawn() {
    local name=$1 pid enter=(nsenter --net="/run/netns/$2")
    # Not `ip netns exec`: that remounts /sys, and the kubelet then finds no cgroups.
    [[ $2 != none ]] || enter=()
    shift 2
    (
        exec 9>&- </dev/null >>"$DIR/logs/$name.log" 2>&1
        # Before the command starts: an interrupted script leaves nothing behind that no file names.
        pid=$BASHPID # within $( ) it would be that of the subshell
        echo "$pid $(start_time "$pid")" >"$DIR/pids/$name"
        exec setsid "${enter[@]}" "$@"
    ) &
    disown
}

process_id() {
    local pid
    read -r pid _ <"$DIR/pids/$1" && echo "$pid"
}

alive() {
    local pid started
    read -r pid started 2>/dev/null <"$DIR/pids/$1" && [[ $(start_time "$pid") = "$started" ]]
}

kill_process() {
    alive "$1" || return 0
    kill -9 "$(process_id "$1")" 2>/dev/null || true
    wait_for 10 "end of $1" dead "$1"
}

dead() { ! alive "$1"; }

# unmount_below DIR, the innermost first.
unmount_below() {
    local mount
    awk -v dir="$1/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r mount; do
        umount "$mount" 2>/dev/null || umount --lazy "$mount" || true
    done
}
