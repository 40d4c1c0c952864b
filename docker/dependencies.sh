#!/bin/sh
# Installs what the package stands on into /opt/graftline, in the versions of requirements.lock. The Dockerfile runs it:
# dependencies.sh list                        writes dependencies.txt from pyproject.toml
# dependencies.sh TARGET TORCH TORCH_INDEX    installs them
set -eu
if [ "$1" = list ]; then
    python -c '
import tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
print(*project["dependencies"], *project["optional-dependencies"]["trainer"], sep="\n")
' | grep --invert-match '^torch' > dependencies.txt
    exit
fi
target=$1 torch=$2 index=$3
venv=/opt/graftline

# Versions that TORCH names take the place of the lock's.
case $torch in
    *=*) sed --regexp-extended '/^torch(vision)?==/d' requirements.lock > constraints.txt ;;
    *) cp requirements.lock constraints.txt ;;
esac
# shellcheck disable=SC2086 # several requirements
$venv/bin/pip install --constraint constraints.txt ${index:+--extra-index-url "$index"} $torch
if [ "$target" = cpu ] && find $venv -name libtorch_cuda.so | grep .; then
    echo "The image cpu needs PyTorch's CPU build, and pip found the one for CUDA. Give the address of an index of CPU" \
        "builds (pytorch.org, \"Get started\") as TORCH_INDEX, or build the image cuda only: TARGETS=cuda" >&2
    exit 1
fi

$venv/bin/pip install --constraint constraints.txt --requirement dependencies.txt
