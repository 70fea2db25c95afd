# PostgreSQL servers of one's own, for scripts/with-postgres and scripts/lib/chaos.sh. Sourced after say.sh, not run.

# The newest folder that holds the server's programs.
find_server() {
    local folder postgres
    if postgres=$(command -v postgres) && command -v initdb >/dev/null; then
        dirname "$(readlink -f "$postgres")"
        return
    fi
    for folder in $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/local/opt/postgresql*/bin /opt/homebrew/opt/postgresql*/bin | sort -rV); do
        if [ -x "$folder/postgres" ] && [ -x "$folder/initdb" ]; then printf '%s\n' "$folder"; return; fi
    done
    return 1
}

# Debian's package starts a server for the whole machine unless it is told not to.
install_server() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    say 'installing PostgreSQL (apt-get install postgresql)' >&2
    mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        printf 'create_main_cluster = false\n' >/etc/postgresql-common/createcluster.conf
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends postgresql; } \
        >/dev/null 2>&1
}

# Sets `bin`, where the server's programs are. Fails where there are none and none can be had.
have_server() {
    bin=$(find_server) || { install_server && bin=$(find_server); }
}

# make_cluster FOLDER: a new, empty cluster in FOLDER/data. Sets `cluster`, and `as_user`, how its programs are run.
make_cluster() {
    local user
    cluster=$1
    # PostgreSQL refuses to run as root; its own user serves, or nobody.
    as_user=()
    if [ "$(id -u)" = 0 ]; then
        user=postgres
        id "$user" >/dev/null 2>&1 || user=nobody
        if command -v setpriv >/dev/null; then
            as_user=(setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups)
        else
            as_user=(runuser -u "$user" --)
        fi
        chown "$user" "$cluster"
    fi
    (cd "$cluster" && "${as_user[@]}" "$bin/initdb" --pgdata "$cluster/data" --username pelton --auth trust --encoding UTF8 \
        --locale C --no-instructions) >"$cluster/initdb.log" 2>&1 || { cat "$cluster/initdb.log" >&2; fail 'initdb failed'; }
}

# start_server [PORT]: starts the server of the cluster. Sets `server`, its process, and `port`: the one given, or a free
# one. Fails if it does not answer after a while.
start_server() {
    local tries=5
    [ -z "${1-}" ] || tries=1
    # Tries other ports if somebody was faster.
    while [ "$tries" -gt 0 ]; do
        tries=$((tries - 1))
        port=${1-$((20000 + RANDOM % 20000))}
        (cd "$cluster" && exec "${as_user[@]}" "$bin/postgres" -D "$cluster/data" -p "$port" -c listen_addresses=127.0.0.1 \
            -c unix_socket_directories="$cluster" -c max_connections=300 -c shared_buffers=128MB -c max_wal_size=512MB \
            -c log_min_messages=fatal) >>"$cluster/server.log" 2>&1 &
        server=$!
        for _ in $(seq 300); do
            if "$bin/pg_isready" -q -h "$cluster" -p "$port"; then return; fi
            kill -0 "$server" 2>/dev/null || break
            sleep 0.1
        done
        stop_server QUIT
    done
    return 1
}

# stop_server SIGNAL: INT ends all sessions and stops cleanly; QUIT is a crash.
stop_server() {
    [ -n "${server-}" ] || return 0
    kill "-$1" "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=''
}
