# What scripts share that play something with a daemon in a temporary folder. Sourced after say.sh, not run.

export LC_ALL=C PELTON_LOG=info,guest=warn PELTON_LOG_FORMAT=text
unset PELTON_STORE # it would override the temporary folder's

# What runs, and where; a feeder ends when there is a file `stop-feeding`.
daemon='' feeder='' folder='' clean=false done=false

# arguments NAME "$@": the only one there is.
arguments() {
    case "${2-}" in
        '') ;;
        --clean) clean=true ;;
        *) printf 'usage: %s [--clean]\n\n  --clean  remove the temporary folder at the end\n' "$1"; [ "$2" = --help ] && exit 0 || exit 2 ;;
    esac
}

cleanup() {
    status=$?
    trap - EXIT
    [ -z "$feeder" ] || : >"$folder/stop-feeding"
    for pid in $daemon $feeder; do kill -9 "$pid" || true; done 2>/dev/null
    { wait; } 2>/dev/null
    [ -n "$folder" ] || exit "$status"
    cd "$root"
    if ! $done; then
        [ ! -s "$folder/daemon.log" ] || { say; say "the daemon's last lines:"; tail -n 15 "$folder/daemon.log"; } >&2
        $clean || say "what was there is kept in $folder" >&2
    fi
    ! $clean || rm -rf "$folder"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Shows a command; `try` runs it too, and shows what it prints.
show() { printf '  %s$ %s%s\n' "$bold" "$*" "$plain"; }
try() {
    show "$@"
    "$@" 2>&1 | awk '{ print "    " (length > 160 ? substr($0, 1, 159) "…" : $0) }'
}

pelton() { "$pelton" "$@"; }

build_pelton() {
    need cargo 'get Rust from https://rustup.rs'
    command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null ||
        fail 'there is no C compiler; on Debian: apt-get install gcc libc6-dev'
    pelton=$(target_folder)/debug/pelton
    [ -x "$pelton" ] || say '  The first build compiles a WebAssembly engine and SQLite: three to four minutes on two cores.'
    local begin=$SECONDS quiet=--quiet
    [ ! -t 2 ] || quiet=''
    show 'cargo build -p pelton'
    (cd "$root" && cargo build -p pelton $quiet) || fail 'the build failed; its messages are above'
    ok "$("$pelton" --version), built in $((SECONDS - begin)) s"
}

# make_folder NAME: and goes there.
make_folder() {
    folder=$(mktemp -d "${TMPDIR:-/tmp}/pelton-$1.XXXXXX")
    cd "$folder"
}

start_daemon() {
    : >"$folder/daemon.log"
    "$pelton" run 2>"$folder/daemon.log" & daemon=$!
    wait_for 30 'the daemon to start' daemon_runs
}
daemon_runs() {
    ! grep -q 'pelton is running' "$folder/daemon.log" || return 0
    kill -0 "$daemon" 2>/dev/null || fail 'the daemon ended'
    return 1
}
stop_daemon() {
    kill -TERM "$daemon"
    wait "$daemon" || fail "the daemon ended with status $? when it was asked to stop"
    daemon=''
}
kill_daemon() {
    kill -9 "$daemon" 2>/dev/null || fail 'the daemon was gone before it could be killed'
    { wait "$daemon" || true; } 2>/dev/null
    daemon=''
}

# committed GROUP, lag GROUP: sums over its partitions.
committed() { in_group "$1" committed; }
lag() { in_group "$1" lag; }
in_group() {
    pelton groups --json | awk -v RS='{' -v group="$1" -v name="\"$2\":" '
        /^"group":/ { ours = index($0, "\"group\":\"" group "\"") == 1; next }
        ours && (at = index($0, name)) { sum += substr($0, at + length(name)) }
        END { print sum + 0 }'
}
has_committed() { [ "$(committed "$1")" -ge "$2" ]; }
# events_in STREAM: how many it holds.
events_in() { pelton streams | awk -v stream="$1" '$1 == stream { print $3 }'; }

# Awk functions for lines of `pelton tail --json`: a field's value. place() sets partition and offset from an emitted
# event's id, which says whose effect it is: group@stream/partition/offset/number.
json='
    function text(name) {
        if (!match($0, "\"" name "\":\"([^\"\\\\]|\\\\.)*\"")) return "-"
        return substr($0, RSTART + length(name) + 4, RLENGTH - length(name) - 5)
    }
    function number(name) {
        match($0, "\"" name "\":[0-9]+")
        return substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 3) + 0
    }
    function payload() { $0 = substr($0, index($0, ",\"payload\":{")) }
    function place(parts) { split(text("id"), parts, "/"); partition = parts[2] + 0; offset = parts[3] + 0 }
'
