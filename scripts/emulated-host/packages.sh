# shellcheck shell=bash disable=SC2154 # Sourced by emulated-host.sh and two-hosts.sh, which set the variables.
#
# Debian packages: those that this machine lacks are installed, those that the emulated host consists of are only
# unpacked in the cache, from a suite and with APT lists of their own.

# Prints the package of each command that is missing.
missing_packages() {
    local -A package_of=(
        [cc]=gcc [cpio]=cpio [curl]=curl [dpkg-deb]=dpkg [ip]=iproute2 [perl]=perl-base [ping]=iputils-ping
        [setpriv]=util-linux [strip]=binutils [xz]=xz-utils
    )
    case $kind in
    two-hosts) package_of[stdbuf]=coreutils ;;
    vmx) package_of+=([g++]=g++ [make]=make [xorriso]=xorriso) ;;
    esac
    local program
    for program in "${!package_of[@]}"; do
        command -v "$program" >/dev/null || echo "${package_of[$program]}"
    done
    [[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]] || echo debian-archive-keyring
}

# Installs what is missing.
install_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]})) || return 0
    say "installing ${missing[*]}"
    # The system's settings: APT_CONFIG is not set yet.
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } \
        >"$work/apt.txt" 2>&1 || fail 1 "these packages cannot be installed: ${missing[*]} ($(tail -n 1 "$work/apt.txt"))"
}

# Points apt-get to lists of its own with $HOST_SUITE.
own_apt() {
    [[ -z ${APT_CONFIG:-} ]] || return 0
    local apt=$cache/apt line=" [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${DEBIAN_MIRROR:-http://deb.debian.org/debian} ${HOST_SUITE:-trixie} main"
    mkdir -p "$apt"/lists/partial "$apt"/cache/archives/partial
    printf '%s\n' "deb$line" "deb-src$line" >"$apt/sources.list"
    cat >"$apt/apt.conf" <<CONF
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$apt/lists";
Dir::Cache "$apt/cache";
APT::Sandbox::User "root";
Acquire::Languages "none";
CONF
    export APT_CONFIG=$apt/apt.conf
    apt-get -qq update >"$work/apt.txt" 2>&1 || fail 1 "apt cannot read the package lists of ${HOST_SUITE:-trixie}: $(tail -n 1 "$work/apt.txt")"
}

# Unpacks package $1 into $cache/$2, unless that exists.
unpack() {
    local package=$1 folder=$cache/$2
    [[ ! -d $folder ]] || return 0
    own_apt
    say "downloading $package"
    rm -rf "$work/deb" && mkdir "$work/deb"
    (cd "$work/deb" && apt-get -qq download "$package") >"$work/apt.txt" 2>&1 ||
        fail 1 "$package cannot be downloaded: $(tail -n 1 "$work/apt.txt")"
    dpkg-deb -x "$work"/deb/*.deb "$work/unpacked"
    mv "$work/unpacked" "$folder"
}

# Unpacks package $1 and all that it depends on into $cache/$2, unless that exists.
unpack_with_dependencies() {
    local package=$1 folder=$cache/$2 deb
    [[ ! -d $folder ]] || return 0
    own_apt
    say "downloading $package and what it depends on"
    : >"$work/no-packages"
    mkdir -p "$work/unpacked" "$work/archives/partial"
    apt-get -qq -y -o Dir::State::status="$work/no-packages" -o Dir::Cache::archives="$work/archives/" --no-install-recommends --download-only \
        install "$package" >"$work/apt.txt" 2>&1 || fail 1 "$package cannot be downloaded: $(tail -n 1 "$work/apt.txt")"
    for deb in "$work"/archives/*.deb; do
        dpkg-deb -x "$deb" "$work/unpacked" || fail 1 "${deb##*/} cannot be unpacked"
    done
    rm -rf "$work/archives"
    mv "$work/unpacked" "$folder"
}
