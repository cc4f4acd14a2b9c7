# The commands of this project; `just` alone lists them. They need git, a C toolchain and Rust. The comparisons with
# Python programs make an environment of their own in .venv-bench, and say so where they cannot.

set positional-arguments

# What the program calls itself in the commands it suggests.
export SLUICE_COMMAND := "just sluice"

target := env("CARGO_TARGET_DIR", "target")
built := target / "debug"
python := ".venv-bench/bin/python"
just := quote(just_executable())

# List the commands
[private]
default:
    @{{ just }} --list --unsorted

# The whole workspace is selected each time, so that every command wants the same features of the dependencies and
# nothing is compiled twice. The dev profile is the optimised one. Where there is a GPU, the program is built for it if
# that can be done (it takes LLVM, which the build fetches unless it is there), and `--device cpu` still leaves it alone.
[private]
build *OPTIONS:
    #!/usr/bin/env bash
    set -euo pipefail
    if gpus=$(nvidia-smi --list-gpus 2>/dev/null) && [ -n "$gpus" ]; then
        if cargo build --workspace --bin sluice --features cuda "$@"; then exit; fi
        echo "the build for the GPU fails, as said above; this one is for the CPU" >&2
    fi
    cargo build --workspace --bin sluice "$@"

# Run pipelines/NAME.yaml; ARGS go to `sluice run`
[no-exit-message]
pipeline NAME *ARGS: build
    @shift && exec "{{ built }}/sluice" run "pipelines/{{ NAME }}.yaml" "$@"

# Any other verb: `just sluice why pairs`
[no-exit-message]
sluice *ARGS: (build "--quiet")
    @exec "{{ built }}/sluice" "$@"

# Every test; `cargo nextest` runs them where it is installed
test:
    cargo build --workspace --bins
    cargo test --workspace --doc --quiet
    @if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --workspace; \
        else cargo test --workspace --lib --bins --tests --examples; fi

# Formatting and lints
lint: format
    cargo clippy --workspace --all-targets -- --deny warnings

# Formatting alone: it compiles nothing
format:
    cargo fmt --all --check

# Make the task set, the tokenizers and the tiny models anew, as data/ has them
tiny-models *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --workspace --bin sluice --bin sluice-tasks
    "{{ built }}/sluice-tasks" generate --out data/tasks
    "{{ built }}/sluice-tasks" tokenizer --out data/tiny
    "{{ built }}/sluice" run pipelines/tiny-models.yaml "$@"
    # Both are found before either is copied: a changed data/tiny is a changed input of the pipeline.
    folder() {
        "{{ built }}/sluice" show pipelines/tiny-models.yaml "$1" --json | sed -n 's/.*"folder":"\([^"]*\)".*/\1/p'
    }
    policy=$(folder policy) reward=$(folder reward)
    # The store's files are read-only; these are not. What stands around the policy's weights is there already, and is
    # what the pipeline starts from: a config in another spelling would make it start anew.
    install -m 644 "$policy/model.safetensors" "$policy/README.md" data/tiny/policy/
    install -m 644 "$reward"/* data/tiny/reward/
    du -ch data/tasks data/tiny | tail -n 1

# The tiny job with seeds 1, 2 and 3: what came out, the middle and the ends
three-seeds *ARGS:
    @{{ just }} _example three_seeds "$@"

# Kill, damage and starve runs, and look whether anything was lost; `--list` names the scenes
chaos *ARGS:
    @{{ just }} _example chaos "$@"

# Four things a user does, as a terminal shows them
stories:
    @{{ just }} _example stories

# What the engine costs, each figure with its goal, beside `dvc` and `b3sum`
bench-engine *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    dvc=()
    if {{ just }} _libraries dvc==3.67.1; then dvc=(--dvc .venv-bench/bin/dvc); fi
    {{ just }} _example bench_engine "${dvc[@]}" "$@"

# Sampling and a SimPO step, beside transformers and PyTorch
bench-tiny *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    peer=()
    if {{ just }} _libraries -r tests/bench/requirements.txt; then peer=(--peer "{{ python }}"); fi
    {{ just }} _example bench_tiny "${peer[@]}" "$@"

# Time and peak memory of loading several gigabytes
bench-load *ARGS:
    @{{ just }} _example bench_load "$@"

# Peak memory and time of training and sampling, beside what is predicted
bench-memory *ARGS:
    @{{ just }} _example bench_memory "$@"

# What the tests measure against the outputs of the original libraries: a table of errors and tolerances
fidelity:
    #!/usr/bin/env bash
    set -euo pipefail
    said=$(mktemp)
    trap 'rm "$said"' EXIT
    # One thread, so that no two tests write into one line.
    cargo test --quiet --workspace --lib --test fidelity --test training -- --nocapture --test-threads 1 >"$said" \
        || { cat "$said"; exit 1; }
    echo '| fixture | compared | error | tolerance |'
    echo '| --- | --- | --- | --- |'
    grep -o '| fixture .*' "$said" | sed 's/fixture //' | sort --version-sort --unique

# Exported checkpoints, loaded by transformers; ARGS are further model folders
check-transformers *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    if ! {{ just }} _libraries -r tests/bench/requirements.txt; then exit 0; fi
    folder=$(mktemp -d)
    trap 'rm -r "$folder"' EXIT
    {{ just }} _example export --out "$folder" "$@"
    "{{ python }}" tests/bench/exported.py "$folder"

# What has to be seen on a GPU, with operations fused and not; `--device cpu` or `cube-cpu` tries the checks without one
gpu-check *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    case " $* " in
        *" --device cpu "*) builds=(none) ;;
        *" --device cube-cpu "*) builds=(cube-cpu) ;;
        *) {{ just }} _gpus gpu-check || exit 0; builds=(cuda cuda-fused) ;;
    esac
    mkdir -p .sluice
    n_failed=0
    for build in "${builds[@]}"; do
        features=()
        if [ "$build" != none ]; then features=(--features "$build"); fi
        cargo build --workspace --bin gpu_check "${features[@]}"
        # Twice: the second start finds the kernels that the first one compiled.
        if [ "$build" = cuda ]; then "{{ built }}/gpu_check" --only start "$@"; fi
        "{{ built }}/gpu_check" --json ".sluice/gpu-check-$build.json" "$@" || n_failed=$((n_failed + 1))
    done
    exit "$n_failed"

# Training, sampling and scoring at published sizes, beside PyTorch on the same GPU; `--device cpu --shape tiny` tries it
bench-gpu *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    case " $* " in
        *" --device cpu "*) features=() ;;
        *) {{ just }} _gpus bench-gpu || exit 0; features=(--features cuda) ;;
    esac
    mkdir -p .sluice
    peer=()
    if {{ just }} _libraries -r tests/bench/requirements.txt; then peer=(--peer "{{ python }}"); fi
    cargo build --workspace --bin bench_gpu "${features[@]}"
    exec "{{ built }}/bench_gpu" --json .sluice/bench-gpu.json "${peer[@]}" "$@"

# Kernels compiled and memory asked for as on a GPU, at published sizes, where there is none; nothing is computed
gpu-rehearsal *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    ptxas=()
    # Kernels are compiled with a library of the CUDA toolkit, whose assembler then says what they take of the chip.
    if {{ just }} _libraries nvidia-cuda-nvcc-cu12==12.9.86; then
        CUDA_PATH=$(echo "$PWD"/.venv-bench/lib/python3.*/site-packages/nvidia/cuda_nvcc)
        export CUDA_PATH
        ptxas=(--ptxas "$CUDA_PATH/bin/ptxas")
    fi
    cargo build --workspace --bin gpu_rehearsal --bin bench_gpu --features cuda
    cargo build --package sluice-driver
    mkdir -p .sluice
    exec "{{ built }}/gpu_rehearsal" --driver "{{ built }}/libstand_in_driver.so" --program "{{ built }}/bench_gpu" \
        "${ptxas[@]}" --json .sluice/gpu-rehearsal.json "$@"

# gpu-check and bench-gpu as one archive, .sluice/gpu-bundle.tar.xz, for a machine that has a GPU and no compiler
gpu-bundle:
    #!/usr/bin/env bash
    set -euo pipefail
    folder=$(mktemp -d)
    trap 'rm -r "$folder"' EXIT
    for build in cuda cuda-fused; do
        cargo build --workspace --bin gpu_check --bin bench_gpu --features "$build"
        strip -o "$folder/gpu_check-$build" "{{ built }}/gpu_check"
        if [ "$build" = cuda ]; then strip -o "$folder/bench_gpu" "{{ built }}/bench_gpu"; fi
    done
    git describe --always --dirty --abbrev=10 >"$folder/commit"
    install -m 755 tests/gpu/run "$folder/run"
    mkdir -p .sluice
    # One window over all of it: the programs have most of their code in common.
    tar --create --directory "$folder" . --directory "{{ justfile_directory() }}" tests/fixtures tests/bench data/tiny \
        | xz --threads=1 --lzma2=preset=9e,dict=512MiB >.sluice/gpu-bundle.tar.xz
    ls -l .sluice/gpu-bundle.tar.xz
    n_bytes=$(stat --format %s .sluice/gpu-bundle.tar.xz)
    if [ "$n_bytes" -gt $((64 << 20)) ]; then echo "the bundle has $n_bytes bytes; 64 MiB is its limit" >&2; exit 1; fi

# In a folder of its own: build scripts that were told DOCS_RS would be run again for a build that links.
# The types of the build for a GPU; takes no GPU and no LLVM, since nothing is linked
check-cuda:
    DOCS_RS=1 cargo check --workspace --bins --features cuda --target-dir "{{ target }}/cuda-types"

# The GPUs of this machine; where there are none, what is skipped for it
[no-exit-message]
_gpus WHAT:
    #!/usr/bin/env bash
    set -uo pipefail
    if ! gpus=$(nvidia-smi --list-gpus 2>/dev/null) || [ -z "$gpus" ]; then
        echo "{{ WHAT }} is skipped: nvidia-smi finds no GPU on this machine"
        exit 1
    fi
    echo "$gpus"

# An example of crate `tests`, built and run
[no-exit-message]
_example NAME *ARGS:
    @cargo build --quiet --workspace --bin sluice --example "{{ NAME }}"
    @shift && exec "{{ built }}/examples/{{ NAME }}" "$@"

# Python libraries in .venv-bench; a failure is told in one line
[no-exit-message]
_libraries *PACKAGES:
    #!/usr/bin/env bash
    set -uo pipefail
    skip() { echo "the comparison with Python is skipped: $*" >&2; exit 1; }
    command -v python3 >/dev/null || skip "there is no python3"
    [ -x "{{ python }}" ] || python3 -m venv .venv-bench || skip "python3 -m venv fails"
    said=$("{{ python }}" -m pip install --quiet --disable-pip-version-check "$@" 2>&1) \
        || skip "pip install $* fails: $(tail -n 1 <<<"$said")"
