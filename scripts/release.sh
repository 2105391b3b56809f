#!/usr/bin/env bash
# Builds the program as it is released: with the list of its crates inside, and a software bill of materials.
#
#   scripts/release.sh [FOLDER]
#
# FOLDER (default: target/release-files) gets
#   understudy            `cargo audit bin understudy` checks the crates that it was built from for known
#                         vulnerabilities; other scanners read the same list (section .dep-v0, made by cargo-auditable)
#   understudy.cdx.json   the crates with versions, licences and digests (CycloneDX 1.5)
#   SHA256SUMS            digests of both
#
# cargo-auditable and cargo-cyclonedx are taken from PATH, or built into target/tools, which takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit ;;
    -*) sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
target=${CARGO_TARGET_DIR:-target}
folder=$(realpath -m "${1:-$target/release-files}")
program=understudy
tools=$(realpath -m "$target/tools/release")
export PATH=$PATH:$tools/bin

for tool in cargo-auditable@0.7.7 cargo-cyclonedx@0.5.9; do
    command -v "${tool%@*}" >/dev/null || cargo install --quiet --locked --root "$tools" "$tool"
done

cargo auditable build --release --locked --package vmm --bin $program
mkdir -p "$folder"
cp "$target/release/$program" "$folder/"

# The tool writes a file into the folder of each package of the workspace.
name=bill-of-materials
packages() { cargo metadata --locked --no-deps --format-version 1 | grep -o '"manifest_path":"[^"]*"' | cut -d'"' -f4; }
clean_up() { packages | while read -r manifest; do rm -f "$(dirname "$manifest")/$name.json"; done; }
trap clean_up EXIT
cargo cyclonedx --quiet --manifest-path vmm/Cargo.toml --format json --spec-version 1.5 \
    --target x86_64-unknown-linux-gnu --override-filename $name
mv "vmm/$name.json" "$folder/$program.cdx.json"

(cd "$folder" && sha256sum $program $program.cdx.json >SHA256SUMS && cat SHA256SUMS)

# A list that lacks what the program is built on would say that all is well.
for crate in kvm-ioctls vm-memory io-uring aegis; do
    grep -q "\"name\": \"$crate\"" "$folder/$program.cdx.json" || { echo "$program.cdx.json lacks $crate" >&2; exit 1; }
done
objcopy --dump-section .dep-v0=/dev/null "$folder/$program" || { echo "$program has no list of its crates" >&2; exit 1; }
