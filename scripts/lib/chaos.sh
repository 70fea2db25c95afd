# What scripts/chaos, scripts/chaos-letters and scripts/swaps share: hosts that come and go, or are given other modules, while
# events flow. Sourced after say.sh and postgres.sh, not run. Uses `events`, `rounds` and `seed`; and from the script
# `host_file HOST`, its configuration.

[ "${BASH_VERSINFO[0]}" -ge 5 ] || fail "this takes bash 5, and $BASH is version $BASH_VERSION"

export LC_ALL=C PELTON_LOG=info PELTON_LOG_FORMAT=text
unset PELTON_STORE # it would override the folder's

store=postgres stores='' seed='' rounds='' events_a_round=5000 keep=false

# options NAMES "$@": sets what is named to the number given for it; and `store`, if the script says which `stores` it
# knows. `usage` is the script's.
options() {
    local numbers=" $1 "
    shift
    while [ $# -gt 0 ]; do
        case $1 in
            --keep) keep=true; shift; continue ;;
            --help) usage; exit ;;
            --store)
                [[ -n "$stores" && -n ${2-} && " $stores " = *" $2 "* ]] || { usage >&2; exit 2; }
                store=$2
                shift 2
                continue ;;
            --?*) [[ $numbers = *" ${1#--} "* ]] || { usage >&2; exit 2; } ;;
            *) usage >&2; exit 2 ;;
        esac
        case ${2-} in '' | *[!0-9]* | 0*) printf '%s takes a number, found "%s"\n' "$1" "${2-}" >&2; exit 2 ;; esac
        printf -v "${1#--}" %s "$2"
        shift 2
    done
    : "${seed:=$((1 + RANDOM * 32768 + RANDOM))}"
    if [ -z "$rounds" ] && [ -n "${events-}" ]; then
        rounds=$((events / events_a_round))
        [ "$rounds" -ge 8 ] || rounds=8
    fi
}

declare -A process=() thaws=() log=()
folder='' server='' feeder='' done=false

cleanup() {
    status=$?
    trap - EXIT
    set +e
    exec 2>/dev/null
    for pid in "${process[@]}" $feeder; do kill -9 "$pid"; done
    stop_server QUIT
    wait
    [ -n "$folder" ] || exit "$status"
    rm -f "$folder/producing"
    cd "$root" || exit
    if $done && ! $keep; then rm -rf "$folder"; else say "logs and database are kept in $folder"; fi
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# prepare NAME: builds the host, makes the folder, goes there, and starts PostgreSQL if that is the store.
prepare() {
    need cargo 'get Rust from https://rustup.rs'
    if [ "$store" = postgres ]; then
        have_server || fail 'there is no PostgreSQL to be found; install its server'
        [ -x "$bin/psql" ] || fail 'there is a PostgreSQL server, but no psql beside it'
    else
        need sqlite3 'on Debian: apt-get install sqlite3'
    fi
    heading 'Preparing'
    local quiet=--quiet
    [ ! -t 2 ] || quiet=''
    (cd "$root" && cargo build -p pelton $quiet) || fail 'the build failed; its messages are above'
    pelton=$(target_folder)/debug/pelton
    folder=$(mktemp -d "${TMPDIR:-/tmp}/pelton-$1.XXXXXX")
    # The server's user has to get through.
    chmod 711 "$folder"
    cd "$folder"
    if [ "$store" = postgres ]; then
        mkdir postgres
        make_cluster "$folder/postgres"
        start_server || { cat postgres/server.log >&2; fail 'PostgreSQL did not start'; }
        url=postgres://pelton@127.0.0.1:$port/postgres
        store_version=$("$bin/postgres" --version | sed 's/.*(PostgreSQL) \([0-9.]*\).*/PostgreSQL \1/')
    else
        url=sqlite://pelton.db
        store_version=SQLite
    fi
    RANDOM=$seed
}
# Writes `workers.toml` and makes the tables.
migrate() {
    host_file nobody >workers.toml
    "$pelton" migrate >/dev/null
}

# Chance. RANDOM, once seeded, always gives the same numbers.
# below N: sets `chosen` to a number from 0 to N-1. Not printed: a subshell would have a sequence of its own.
below() { chosen=$(((RANDOM * 32768 + RANDOM) % $1)); }
# pause FROM TO: so many milliseconds.
pause() {
    below $(($2 - $1))
    sleep_ms $(($1 + chosen))
}
sleep_ms() { sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"; }
now_ms() { printf '%s' $((${EPOCHREALTIME/[.,]/} / 1000)); }

# sql: statements from standard input; on PostgreSQL also as arguments of psql.
sql() {
    if [ "$store" = postgres ]; then
        PGOPTIONS='-c client_min_messages=warning -c search_path=pelton' "$bin/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" \
            -U pelton postgres "$@"
    else
        sqlite3 -batch -bail -noheader -list -cmd '.timeout 30000' pelton.db "$@"
    fi
}

# --- Hosts ---

starts=0
start_host() {
    local host=$1
    host_file "$host" >"$host.toml"
    log[$host]=$host-$((++starts)).log
    : >"${log[$host]}"
    "$pelton" run -c "$host.toml" 2>"${log[$host]}" &
    process[$host]=$!
    thaws[$host]=0
    wait_for 60 "$host to start" host_runs "$host"
}
host_runs() {
    ! grep -q 'pelton is running' "${log[$1]}" || return 0
    host_lives "$1" || host_died "$1"
    return 1
}
host_lives() { kill -0 "${process[$1]}" 2>/dev/null; }
host_died() {
    tail -n 15 "${log[$1]}" >&2
    fail "$1 has ended, and nobody asked it to"
}
all_live() {
    local host
    for host in $(hosts); do host_lives "$host" || host_died "$host"; done
}
# Hosts that run, those that are stopped among them, in a row that does not depend on bash.
hosts() { printf '%s\n' "${!process[@]}" | sort; }
# choose: sets `host` to one of those that run; `awake` for one that is not stopped.
choose() {
    local all=() each
    for each in $(hosts); do
        if [ "${1-}" != awake ] || [ "${thaws[$each]}" -le "$(now_ms)" ]; then all+=("$each"); fi
    done
    [ ${#all[@]} -gt 0 ] || return 1
    below ${#all[@]}
    host=${all[chosen]}
}
gone() { unset "process[$1]" "thaws[$1]"; }
# The first name that nobody has: a host that comes back has its old one.
free_name() {
    local n=1
    while [ -n "${process[host-$n]-}" ]; do n=$((n + 1)); done
    printf 'host-%s' $n
}
# at_least N: starts hosts until there are so many.
at_least() {
    local host
    while [ ${#process[@]} -lt "$1" ]; do
        host=$(free_name)
        [ "$starts" -lt "$1" ] || say "              $host comes back"
        start_host "$host"
    done
}
has_ended() { ! host_lives "$1"; }
stop_host() {
    local status=0
    kill -TERM "${process[$1]}"
    wait_for 60 "$1 to stop" has_ended "$1"
    wait "${process[$1]}" || status=$?
    [ "$status" = 0 ] || { tail -n 15 "${log[$1]}" >&2; fail "$1 ended with status $status when it was asked to stop"; }
    gone "$1"
}
kill_host() {
    kill -9 "${process[$1]}"
    { wait "${process[$1]}" || true; } 2>/dev/null
    gone "$1"
}

# --- Events ---

# make_events KEYS AWK: numbered, each with its number among those of its key. The awk statements set `kind`, and `more`
# fields; chance(N) is a number from 0 to N-1.
make_events() {
    awk -v events="$events" -v state="$seed" -v keys="$1" '
        function chance(n) { state = (state * 16807) % 2147483647; return state % n }
        BEGIN {
            for (n = 1; n <= events; n++) {
                key = "key-" chance(keys)
                '"$2"'
                printf "{\"id\":\"event-%d\",\"key\":\"%s\",\"kind\":\"%s\",%s\"payload\":{\"number\":%d,\"of_key\":%d}}\n", n, key, kind, more, n, ++count[key]
            }
        }' >events.ndjson
}
# feed FROM TO: appends these events in order, on PostgreSQL some by the command and some in SQL. An answer may get lost,
# or the database be away: each part is sent again until it is confirmed. What was there already is not appended twice.
part=1000
feed() {
    local from=$1 to
    while [ "$from" -le "$2" ]; do
        to=$((from + part - 1))
        [ "$to" -le "$2" ] || to=$2
        sed -n "$from,${to}p;${to}q" events.ndjson >part.ndjson
        wait_for 60 "events $from to $to to be appended" append_part $((from / part % 2))
        from=$((to + 1))
    done
}
append_part() {
    if [ "$1" = 0 ] || [ "$store" != postgres ]; then
        "$pelton" append in part.ndjson --format event
    else
        sql -1 -c 'CREATE TEMP TABLE part (n int GENERATED ALWAYS AS IDENTITY, line text)' -c '\copy part (line) FROM part.ndjson' \
            -c "SELECT count(*) FROM pelton.append('in', (SELECT jsonb_agg(line::jsonb ORDER BY n) FROM part))"
    fi >>append.log 2>&1
}
# produce RATE KEYS: appends so many events a second, in ten parts, as make_events makes them, until `stop_producing`; which
# sets `produced`, how many there were.
produce() {
    : >producing
    awk -v each=$(($1 / 10)) -v state="$seed" -v keys="$2" '
        function chance(n) { state = (state * 16807) % 2147483647; return state % n }
        BEGIN {
            while ((getline line <"producing") >= 0) {
                close("producing")
                for (i = 0; i < each; i++) {
                    key = "key-" chance(keys)
                    printf "{\"id\":\"event-%d\",\"key\":\"%s\",\"kind\":\"k\",\"payload\":{\"number\":%d,\"of_key\":%d}}\n", ++n, key, n, ++count[key]
                }
                fflush()
                system("sleep 0.1")
            }
            print n >"produced"
        }' | "$pelton" append in - --format event --batch $(($1 / 10)) >append.log 2>&1 &
    feeder=$!
}
stop_producing() {
    rm producing
    wait "$feeder" || fail "events could not be appended: $(tail -n 3 append.log)"
    feeder=''
    produced=$(cat produced)
}
has_ended_feeding() { ! kill -0 "$feeder" 2>/dev/null; }

# --- Rounds ---

appended=0 in_work=0
# play_round TO COUNT INCIDENT...: appends up to event TO, and in the middle of work lets the incident happen, which sets
# `what`. COUNT sets `left`, how much there is to do.
play_round() {
    local to=$1 count=$2
    shift 2
    pause 100 900
    feed $((appended + 1)) "$to" &
    feeder=$!
    appended=$to
    # It is to happen in the middle of work, but a few milliseconds decide of what.
    until $count; [ "$left" != 0 ] || has_ended_feeding; do :; done
    [ "$left" = 0 ] || in_work=$((in_work + 1))
    pause 0 100
    "$@"
    printf '  %3d of %d  %7s to do  %s\n' "$round" "$rounds" "$(commas "$left")" "$what"
    pause 200 900
    wait "$feeder" || fail "events could not be appended: $(tail -n 3 append.log)"
    feeder=''
    all_live
}

# settle WHAT COUNT: everybody goes on until there is nothing to do, and so many seconds without any progress are too many.
settle() {
    before='' moved=$SECONDS
    wait_for 1800 "$1" is_done "$2"
}
is_done() {
    all_live
    $1
    [ "$left" != 0 ] || return 0
    [ "$left" = "$before" ] || { before=$left; moved=$SECONDS; }
    [ $((SECONDS - moved)) -lt 60 ] || fail "nothing was handled for a minute, and $left are left to do"
    return 1
}

# --- What came of it ---

# judge FILE N: tells of the N checks in the file, WHAT|EXPECTED|FOUND, and adds to `wrong`.
wrong=0
judge() {
    local what expected found
    while IFS='|' read -r what expected found; do
        if [ "$expected" = "$found" ]; then
            printf '  %sok%s     %9s  %s\n' "$green" "$plain" "$(commas "$found")" "$what"
        else
            printf '  %sWRONG%s  %9s  %s: expected %s\n' "$red" "$plain" "$(commas "$found")" "$what" "$(commas "$expected")"
            wrong=$((wrong + 1))
        fi
    done <"$1"
    [ "$(awk 'END { print NR }' "$1")" = "$2" ] || fail 'not everything could be checked'
}
# logged TEXT: how many lines of the hosts' logs have it.
logged() { cat ./*.log | grep -c "$1" || true; }
# A pump that panics is started again, and nothing but the log would tell.
no_panics() {
    local panics
    panics=$(logged panicked)
    [ "$panics" = 0 ] || fail "there were $panics panics; see the logs"
}
# verdict COMMAND: fails if a check did, or if too little was proved.
verdict() {
    no_panics
    [ "$wrong" = 0 ] || fail "$wrong of the checks failed; to see it again: $1 --events $events --rounds $rounds --seed $seed"
    [ $((in_work * 2)) -gt "$rounds" ] || fail 'most of it happened while there was nothing to do: this proves too little; give more --events'
    done=true
}
