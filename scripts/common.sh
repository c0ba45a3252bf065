# Shared by the scripts beside it; sourced, never run.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
note() { printf '   %s\n' "$*"; }
fail() {
    printf '\033[1;31merror:\033[0m %s\n' "$*" >&2
    exit 1
}

# Runs a command as root, through sudo where we are not.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this needs root: run it as root, or install sudo (cannot run: $*)"
    fi
}

# cargo of rustup is not on every root's PATH.
for folder in "$HOME/.cargo/bin" /usr/local/go/bin /usr/sbin /sbin; do
    case ":$PATH:" in
    *":$folder:"*) ;;
    *) [ -d "$folder" ] && PATH="$PATH:$folder" ;;
    esac
done
export PATH
