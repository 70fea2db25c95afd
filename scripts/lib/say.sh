# What the scripts share: how they speak, and how they wait. Sourced, not run.

if [ -t 1 ]; then bold=$(printf '\033[1m') green=$(printf '\033[32m') red=$(printf '\033[31m') plain=$(printf '\033[0m')
else bold='' green='' red='' plain=''; fi

say() { printf '%s\n' "$*"; }
heading() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
ok() { printf '  %sok%s  %s\n' "$green" "$plain" "$*"; }
fail() { printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2; exit 1; }

# need TOOL HOW-TO-GET-IT
need() { command -v "$1" >/dev/null 2>&1 || fail "$1 is not installed; $2"; }

# 26320 -> 26,320
commas() { printf '%s' "$1" | sed -e :more -e 's/\(.*[0-9]\)\([0-9]\{3\}\)/\1,\2/' -e 't more'; }

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
    local until=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ "$SECONDS" -lt "$until" ] || fail "waited too long for $what"
        sleep 0.05
    done
}

# Where cargo puts what it builds, wherever that was configured.
target_folder() {
    cargo metadata --no-deps --format-version 1 --manifest-path "$root/Cargo.toml" |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}
