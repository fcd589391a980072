#!/usr/bin/env bash
# Checks of a machine with a GPU: tests, kernels, equality with the CPU, speed, cells, failures. Ends within BUDGET seconds.
#
#   bash tests/gpu/first_run.sh [piece ...]   pieces: env tests kernels equality speed cells traps permuted workers tune
#
# A finished piece is not repeated on the same machine (STATE): the same command resumes.
# Environment: EXTRAS (folder .dev), DEVICE=cuda|cpu, BUDGET (seconds for everything), OUT (what comes back), STATE (kept on the warm machine),
# TINY=1 (rehearsal without a GPU: small shapes, digits instead of MNIST), SLOW=4 (time limits of pieces times 4).
set -u
REPO=${REPO:-$(pwd)}
# Wheels (whl/), packed MNIST (data/) and the commit (commit) for a machine without a network; not in the repository.
export HERE=${EXTRAS:-$REPO/.dev}
export DEVICE=${DEVICE:-cuda} TINY=${TINY:-0} BUDGET=${BUDGET:-535} SLOW=${SLOW:-1} STATE=${STATE:-${TMPDIR:-/tmp}/first_run}
export OUT=${OUT:-$STATE/out} PYTHONUNBUFFERED=1 PIP_ROOT_USER_ACTION=ignore
BEGUN=$(date +%s)
END=$((BEGUN + BUDGET))
PY=${PY:-python3}
mkdir -p "$STATE"/{logs,done,csv,json} "$OUT"
cd "$REPO" || exit 2
[ -f runners/speed.py ] || { echo "run this in the root of the project (runners/speed.py is not here)"; exit 2; }

# -- what the machine lacks ----------------------------------------------------------------------
if compgen -G "$HERE/whl/*.whl" > /dev/null && ! [ -d "$STATE/site/pydantic" ]; then
    $PY -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$STATE/site" "$HERE"/whl/*.whl \
        > "$STATE/logs/pip.log" 2>&1 || { echo "wheels cannot be installed:"; tail -5 "$STATE/logs/pip.log"; }
fi
export PYTHONPATH="$REPO${PYTHONPATH:+:$PYTHONPATH}"
STANDIN=""
[ -d "$STATE/stand-in" ] && STANDIN=$STATE/stand-in
[ -d "$STATE/site" ] && export PYTHONPATH="$STATE/site:$PYTHONPATH"
if compgen -G "$HERE/data/*.gz" > /dev/null; then
    export CONTINUAL_DATA=$STATE/data
    mkdir -p "$CONTINUAL_DATA/MNIST/raw"
    for file in "$HERE"/data/*-ubyte.gz; do
        target=$CONTINUAL_DATA/MNIST/raw/$(basename "${file%.gz}")
        [ -s "$target" ] || gunzip -c "$file" > "$target"
    done
fi

# -- pieces --------------------------------------------------------------------------------------
left() { echo $((END - $(date +%s))); }

# one NAME LIMIT COMMAND...: under its own time limit, with its own log; done once.
one() {
    local name=$1 limit=$(($2 * SLOW)) rc begun seconds
    shift 2
    if [ -e "$STATE/done/$name" ]; then
        printf '%-34s done before\n' "$name"
        return 0
    fi
    if [ "$(left)" -lt 15 ]; then
        printf '%-34s not reached\n' "$name" | tee -a "$STATE/pieces"
        return 1
    fi
    [ "$limit" -gt $(($(left) - 8)) ] && limit=$(($(left) - 8))
    begun=$(date +%s)
    timeout -k 3 "$limit" "$@" > "$STATE/logs/$name.log" 2>&1
    rc=$?
    seconds=$(($(date +%s) - begun))
    case $rc in
        0) touch "$STATE/done/$name"; rc=ok ;;
        124 | 137) rc="TIMEOUT after $limit s" ;;
        *) rc="FAILED rc=$rc: $(grep -v '^ ' "$STATE/logs/$name.log" | tail -1 | cut -c1-150)" ;;
    esac
    printf '%-34s %4d s  %s\n' "$name" "$seconds" "$rc" | tee -a "$STATE/pieces"
    collect
}

# What comes back: at most 8 files of 16 MiB. Records without checkpoints.
collect() {
    $PY "$STATE/first_run.py" table > "$OUT/table.txt" 2>> "$STATE/logs/table.err"
    cat "$STATE"/json/*.jsonl > "$OUT/measured.jsonl" 2> /dev/null
    tar -C "$STATE" -czf "$OUT/logs.tar.gz" logs pieces csv 2> /dev/null
    [ -d "$STATE/results" ] && tar -C "$STATE" --exclude='*checkpoint*' --exclude='*.png' -czf "$OUT/results.tar.gz" results 2> /dev/null
    return 0
}

piece_env() { one env 60 $PY "$STATE/first_run.py" env; }

piece_tests() {
    local options=(-q -p no:cacheprovider -p no:benchmark -W default --tb=short -rfE) workers=8 which="cuda_graph or waits_for_the_gpu"
    $PY -c 'import pytest_timeout' 2> /dev/null && options+=(--timeout 100)
    [ "$TINY" = 1 ] && workers=1 which="rules_that_look or against_its_will"
    $PY -c 'import xdist' 2> /dev/null && options+=(-n "$workers")
    one tests-kernels 150 $PY -m pytest "${options[@]}" tests/methods/test_triton_passes.py
    one tests-steps 150 $PY -m pytest "${options[@]}" tests/methods/test_stepping.py -k "$which"
}

piece_kernels() { one kernels 75 $PY "$STATE/first_run.py" kernels; }

# Every order in a command of its own, so that one that hangs costs itself alone.
piece_speed() {
    local split=split-mnist permuted=permuted-mnist-10 suite=mnist other=permuted seen=0,9 scenario method name steps=()
    [ "$TINY" = 1 ] && split=split-digits permuted=permuted-digits suite=quick other=quick seen=0,1 steps=(--steps 2)
    for name in finetune:til ewc:til hyperinterval:til hyperinterval:dil hnet:til hypermask:til intercontinet:til; do
        method=${name%:*} scenario=${name#*:}
        one "speed-split-$method-$scenario" 45 $PY runners/speed.py --device "$DEVICE" --methods "$method" --scenarios "$scenario" \
            --benchmarks $split --suite $suite --tasks-seen $seen "${steps[@]}" --csv "$STATE/csv/split-$method-$scenario.csv"
    done
    for name in hyperinterval:til hyperinterval:dil hypermask:til finetune:til ewc:til hnet:til intercontinet:til; do
        method=${name%:*} scenario=${name#*:}
        one "speed-permuted-$method-$scenario" 60 $PY runners/speed.py --device "$DEVICE" --methods "$method" --scenarios "$scenario" \
            --benchmarks $permuted --suite $other --tasks-seen $seen "${steps[@]}" --csv "$STATE/csv/permuted-$method-$scenario.csv"
    done
    one speed-profile 60 $PY runners/speed.py --device "$DEVICE" --methods hyperinterval --scenarios til --benchmarks $split \
        --suite $suite --tasks-seen $seen "${steps[@]}" --profile "$STATE/logs/profile.md"
}

piece_equality() { one equality 90 $PY "$STATE/first_run.py" equality; }

# Each in a process of its own: a failed capture poisons the process that had it.
piece_traps() {
    local trap
    for trap in sync_in_capture held_tasks workspaces out_of_memory precision; do
        one "trap-$trap" 40 $PY "$STATE/first_run.py" "$trap"
    done
}

# compare NAME LIMIT OPTIONS...: a run of compare.py. Where cells fail because CUDA is asked before it is initialised, again with a
# stand-in that initialises it in every process (so that one line does not cost the whole run).
compare() {
    local name=$1 limit=$2
    shift 2
    [ -e "$STATE/stand-in" ] && name="$name-with-stand-in"
    one "$name" "$limit" ${STANDIN:+env "PYTHONPATH=$STANDIN:$PYTHONPATH"} $PY runners/compare.py --device "$DEVICE" --no-report --no-reference "$@"
    if [ ! -e "$STATE/stand-in" ] && grep -q "did you call init" "$STATE/logs/$name.log" 2> /dev/null; then
        mkdir -p "$STATE/stand-in" && echo 'import torch; torch.cuda.init()' > "$STATE/stand-in/sitecustomize.py"
        STANDIN=$STATE/stand-in
        compare "$name" "$limit" "$@"
    fi
}

piece_cells() {
    local scenario scale=1 suite=mnist benchmark=split-mnist
    [ "$TINY" = 1 ] && scale=0.02 suite=quick benchmark=split-digits
    for scenario in til dil cil; do
        compare "cell-split-$scenario" 90 --suite $suite --methods hyperinterval --benchmarks $benchmark --scenarios $scenario \
            --seeds 1 --workers 1 --budget-scale $scale --results "$STATE/results/split-$scenario"
    done
}

# At the paper's length where the measured step allows, else as much of it as the time left does.
piece_permuted() {
    local scale suite=permuted benchmark=permuted-mnist-10
    scale=$($PY "$STATE/first_run.py" scale "$(($(left) - 45))")
    [ "$TINY" = 1 ] && scale=0.02 suite=quick benchmark=permuted-digits
    [ "$scale" = 0 ] && { printf '%-34s no time or no measured step\n' cell-permuted-til | tee -a "$STATE/pieces"; return; }
    echo "permuted: budget scale $scale"
    compare cell-permuted-til 400 --suite $suite --methods hyperinterval --benchmarks $benchmark --scenarios til --seeds 1 \
        --workers 1 --budget-scale "$scale" --results "$STATE/results/permuted-$scale"
}

# Does it pay to share a GPU? The same eight cells by one worker and by four.
piece_workers() {
    local n scale=1
    [ "$TINY" = 1 ] && scale=0.02
    for n in 1 4; do
        compare "workers-$n" 80 --suite quick --methods finetune,hypermask --benchmarks split-digits --scenarios til --seeds 4 \
            --workers $n --budget-scale $scale --results "$STATE/results/workers-$n"
    done
}

piece_tune() { one tune 150 $PY "$STATE/first_run.py" tune; }

cat > "$STATE/first_run.py" <<'PYTHON'
"""Pieces of first_run.sh that are Python. Results: a JSON line each in STATE/json, and in words on standard output."""
import contextlib, copy, csv, dataclasses, json, logging, os, re, statistics, sys, time, warnings
from pathlib import Path

STATE, DEVICE, TINY = Path(os.environ["STATE"]), os.environ["DEVICE"], os.environ["TINY"] == "1"
PIECE = sys.argv[1]
ON_CUDA = DEVICE.startswith("cuda")


def note(**values):
    with (STATE / "json" / f"{PIECE}.jsonl").open("a") as file:
        file.write(json.dumps({"piece": PIECE, **values}) + "\n")
    print("  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items()), flush=True)


def sync():
    import torch
    if ON_CUDA:
        torch.cuda.synchronize()


def median_ms(function, repeats=15, warm=3):
    """Median milliseconds, by device events on CUDA."""
    import torch
    for _ in range(warm):
        function()
    times = []
    for _ in range(repeats):
        if ON_CUDA:
            a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            a.record(); function(); b.record(); sync()
            times.append(a.elapsed_time(b))
        else:
            begun = time.perf_counter(); function(); times.append(1000 * (time.perf_counter() - begun))
    return statistics.median(times)


def bandwidth():
    import torch
    n = (1 << 20) if TINY else (1 << 28)
    a = torch.ones(n, device=DEVICE); b = torch.empty_like(a)
    return 8 * n / median_ms(lambda: b.copy_(a)) / 1e6  # GB/s


def env():
    import importlib.metadata as metadata, platform, subprocess
    import torch
    found = {}
    for name in ("numpy", "triton", "torchvision", "timm", "pandas", "pydantic", "scikit-learn", "pytest", "avalanche-lib"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    commit = Path(os.environ["HERE"]) / "commit"
    note(commit=commit.read_text().strip() if commit.exists() else None, python=platform.python_version(), torch=torch.__version__, **found)
    if not ON_CUDA:
        return
    smi = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version,memory.used,memory.total,clocks.sm,clocks.mem",
                          "--format=csv,noheader"], capture_output=True, text=True).stdout.strip()
    begun = time.perf_counter()
    free_before = torch.cuda.mem_get_info()[0]
    torch.ones(8, device="cuda").sum().item()
    seconds = time.perf_counter() - begun
    used = lambda: torch.cuda.mem_get_info()[1] - torch.cuda.mem_get_info()[0]
    a = torch.randn(256, 256, device="cuda"); (a @ a).sum().item()
    p = torch.cuda.get_device_properties(0)
    note(smi=smi, capability=f"{p.major}.{p.minor}", processors=p.multi_processor_count, l2_MiB=p.L2_cache_size >> 20,
         init_s=seconds, first_use_MiB=(free_before - torch.cuda.mem_get_info()[0]) >> 20, used_MiB=used() >> 20,
         allocated_MiB=torch.cuda.memory_allocated() / 2**20)
    note(copy_GB_per_s=bandwidth())
    for name, tf32 in (("float32", False), ("tf32", True)):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = torch.randn(128, 784, device="cuda"), torch.randn(784, 400, device="cuda")
        c, d = torch.randn(4096, 4096, device="cuda"), torch.randn(4096, 4096, device="cuda")
        note(matmul=name, us_128x784x400=1000 * median_ms(lambda: a @ b, 50), TFLOPs_4096=2 * 4096**3 / median_ms(lambda: c @ d) / 1e9)
    torch.backends.cuda.matmul.allow_tf32 = False
    x = torch.zeros(1, device="cuda"); graph = torch.cuda.CUDAGraph()
    side = torch.cuda.Stream()
    with torch.cuda.graph(graph, stream=side):
        for _ in range(200):
            x.add_(1)
    note(us_per_tiny_kernel_in_a_graph=1000 * median_ms(graph.replay, 30) / 200)


SHAPES = {  # weights' rows, hidden, centres, radii a task (TIL: own only)
    "split til": (475_202, 75, False), "split dil": (475_202, 100, True),
    "permuted til": (2_036_010, 100, False), "permuted dil": (2_036_010, 100, True), "split hypermask": (475_202, 25, None),
}


def case(n, h, nested, t, dtype=None):
    import torch
    from methods.hypernetworks.output_layer import OutputAdam, OutputLayer, Targets
    torch.manual_seed(0)
    if TINY:
        n = 3001
    k, own_radii = t + 1, 0 if nested is None else 1
    m, s = (k, t) if nested else (own_radii, 0)
    with torch.device(DEVICE):
        layer = OutputLayer(h, n)
        centre, radius = torch.randn(k, h), torch.rand(m, h)
        held = Targets(torch.randn(t, n), torch.rand(s, n), 2 / 3) if t else None
        given = (torch.randn(1, n), torch.randn(m - s, n), torch.tensor(0.1), torch.tensor(0.05))
    adam = OutputAdam(layer, 1e-3)
    if ON_CUDA:  # the layout of training
        from methods.hypernetworks import triton_passes
        adam.move_into(layer, triton_passes.widened)
    return layer, adam, centre, radius, held, given


def passes_on_this_device():
    from methods.hypernetworks import compiled, torch_passes
    if ON_CUDA:
        from methods.hypernetworks import triton_passes
        return {"triton": triton_passes, "pytorch": torch_passes}
    return {"compiled" if compiled.library() else "pytorch": compiled if compiled.library() else torch_passes}


def kernels():
    """Time and error of the output layer's two passes; the floor is 28 bytes a weight at the copy's bandwidth."""
    import torch
    from methods.hypernetworks import torch_passes
    from methods.hypernetworks.passes import Cotangents
    rate = bandwidth()
    if ON_CUDA:
        from methods.hypernetworks import triton_passes
        begun = time.perf_counter()
        note(self_check=triton_passes.self_check(torch.device(DEVICE)), compile_s=time.perf_counter() - begun)
    for name, (n, h, nested) in SHAPES.items():
        for t in (0, 9):
            reference = None
            for who, passes in reversed(passes_on_this_device().items()):
                layer, adam, centre, radius, held, given = case(n, h, nested, t)
                weight, bias = layer.weight.detach(), layer.bias.detach()
                given = Cotangents(*given)
                begun = time.perf_counter()
                with torch.no_grad():
                    images = passes.forward(centre, radius, weight, bias, held); adam.begin()
                    results = [*images, *passes.backward(centre, radius, weight, images, given, adam), weight.clone()]
                    sync(); first = time.perf_counter() - begun
                    worst = None
                    if who != "pytorch":
                        other = case(n, h, nested, t)
                        w, b = other[0].weight.detach().double(), other[0].bias.detach().double()
                        from methods.hypernetworks.output_layer import Targets
                        target = Targets(held.theta.double(), held.rho.double(), held.radius_weight) if held else None
                        exact = torch_passes.forward(centre.double(), radius.double(), w, b, target)
                        gradient = torch.empty_like(w)
                        double = Cotangents(*(g.double() for g in given))
                        exact = [*exact, *torch_passes.backward(centre.double(), radius.double(), w, exact, double, gradient)]
                        worst = max(float((a.double() - e).norm() / e.norm().clamp_min(1e-30)) for a, e in zip(results, exact) if e.numel())
                        del w, b, exact, gradient
                    one = median_ms(lambda: passes.forward(centre, radius, weight, bias, held))
                    two = median_ms(lambda: passes.backward(centre, radius, weight, images, given, adam))
                size = weight.numel()
                note(shape=name, t=t, who=who, forward_ms=one, backward_ms=two, floor_ms=28 * size / rate / 1e6,
                     over_floor=(one + two) * rate * 1e6 / (28 * size), forward_share=4 * size / one / 1e6 / rate,
                     backward_share=24 * size / two / 1e6 / rate, first_s=first, error=worst)
                del layer, adam, results, images


def tune():
    """Other tiles of the Triton kernels, as far as the module's constants choose them."""
    import torch
    from methods.hypernetworks import triton_passes
    from methods.hypernetworks.passes import Cotangents
    rate = bandwidth()
    for name in ("split til", "permuted til", "split dil"):
        layer, adam, centre, radius, held, given = case(*SHAPES[name], 9)
        weight, bias, given = layer.weight.detach(), layer.bias.detach(), Cotangents(*given)
        for which, tiles in (("forward", ((32, 64, 8), (64, 32, 4), (128, 32, 4), (64, 64, 4), (128, 16, 4))),
                             ("backward", ((32, 64, 8), (32, 32, 4), (32, 64, 4), (64, 32, 4), (32, 128, 8)))):
            for rows, columns, warps in tiles:
                getattr(triton_passes, which.upper()).update(BN=rows, BH=columns, num_warps=warps)
                try:
                    with torch.no_grad():
                        images = triton_passes.forward(centre, radius, weight, bias, held)
                        call = ((lambda: triton_passes.forward(centre, radius, weight, bias, held)) if which == "forward" else
                                (lambda: triton_passes.backward(centre, radius, weight, images, given, adam)))
                        ms = median_ms(call)
                    note(shape=name, which=which, rows=rows, columns=columns, warps=warps, ms=ms,
                         share_of_copy=(4 if which == "forward" else 24) * weight.numel() / ms / 1e6 / rate)
                except Exception as error:
                    note(shape=name, which=which, rows=rows, columns=columns, warps=warps, failed=f"{type(error).__name__}: {error}"[:150])
        del layer, adam, images


def opened(benchmark, scenario, steps, device=None, n_tasks=None, batch=None):
    from benchmarks.catalogue import find
    from benchmarks.stream import open_stream
    from benchmarks.types import Budget, Scenario
    found = find(benchmark)
    if n_tasks:
        found = dataclasses.replace(found, n_tasks=n_tasks)
    return open_stream(found, Scenario(scenario), 0, device=device or DEVICE, budget=Budget(batch or found.budget.batch_size, steps=steps))


def trained(name, stream, tasks, settings, device=None, seed=0):
    """The method after so many tasks, seconds of their training."""
    from methods import registry
    from runners.grid.hyperparameters import configure
    cls = registry.load(name)
    method = cls(stream.spec, configure(name, cls.Config, settings), device or DEVICE, seed)
    sync(); begun = time.perf_counter()
    for j in range(tasks):
        task = stream.task(j, previous=method.rehearses)
        method.begin(task); method.learn(task)
    sync()
    return method, time.perf_counter() - begun


def settings_of(method, benchmark, scenario):
    from benchmarks.types import Scenario
    from runners.speed import _settings
    return _settings("quick" if TINY else "mnist", method, benchmark, Scenario(scenario))


def tensors(method):
    import torch
    from torch.utils._pytree import tree_flatten
    return [t for t in tree_flatten(method.state_dict())[0] if isinstance(t, torch.Tensor) and t.is_floating_point()]


def apart(a, b):
    """||a - b|| / ||b|| over all tensors of the state, the worst."""
    return max(float((x - y).double().norm() / y.double().norm().clamp_min(1e-12)) for x, y in zip(tensors(a), tensors(b)))


def equality():
    """Captured against step by step, twice captured, and against the CPU, after two tasks at full size."""
    import torch
    from methods.shared import stepping
    benchmark, steps = ("split-digits", 6) if TINY else ("split-mnist", 60)
    took = []
    if hasattr(stepping, "CudaRecorder"):
        original = stepping.CudaRecorder.__call__

        def timed(self, body):
            sync(); begun = time.perf_counter()
            recorded = original(self, body)
            sync(); took.append(time.perf_counter() - begun)
            return recorded

        stepping.CudaRecorder.__call__ = timed
    for name, scenario in (("finetune", "til"), ("ewc", "til"), ("joint", "til"), ("si", "til"), ("hnet", "til"), ("hyperinterval", "til"),
                           ("hyperinterval", "dil"), ("hyperinterval", "cil"), ("hypermask", "til"), ("intercontinet", "til")):
        stream = opened(benchmark, scenario, steps)
        settings = settings_of(name, benchmark, scenario)
        took.clear()
        try:
            os.environ["CONTINUAL_GRAPHS"] = "1"
            one, seconds = trained(name, stream, 2, settings)
            again, seconds_again = trained(name, stream, 2, settings)
            os.environ["CONTINUAL_GRAPHS"] = "0"
            plain, seconds_plain = trained(name, stream, 2, settings)
            note(method=name, scenario=scenario, how=one.stepped, captures=len(took) // 2,
                 ms_a_capture=1000 * statistics.median(took) if took else None, same_bits=apart(one, again) == 0.0,
                 captured_vs_plain=apart(one, plain), captured_s=seconds_again, plain_s=seconds_plain,
                 loss=one.curve[-1].loss, plain_loss=plain.curve[-1].loss)
            if ON_CUDA and name in ("finetune", "ewc", "si", "joint", "hypermask", "intercontinet"):
                host, _ = trained(name, opened(benchmark, scenario, steps, device="cpu"), 1, settings, device="cpu")
                there, _ = trained(name, stream, 1, settings)
                note(method=name, scenario=scenario, first_loss_cpu=host.curve[0].loss, first_loss_cuda=there.curve[0].loss)
        except Exception as error:
            logging.exception("%s %s", name, scenario)
            note(method=name, scenario=scenario, failed=f"{type(error).__name__}: {error}"[:200])
    os.environ.pop("CONTINUAL_GRAPHS")


def learner(waits):
    """Finetuning that claims to be capturable and, if `waits`, reads its loss on the host in every step."""
    from torch.nn.functional import cross_entropy
    from methods.base import Method

    class Waiting(Method):
        name, capturable = "waiting", True

        def build(self):
            self.net = self.network()

        def learn(self, task):
            def loss(batch):
                value = cross_entropy(self.answerable(self.net(batch.x), batch.task), batch.y)
                if waits and float(value.detach()) < 0:
                    print("never")
                return value

            self.fit(task, loss, self.net.parameters(), lr=1e-3)

        def predict(self, x, task_id=None):
            return self.answerable(self.net(x), task_id)

    return Waiting


def outcome(name, action):
    try:
        note(after=name, works=True, answer=str(action())[:60])
    except Exception as error:
        note(after=name, works=False, answer=f"{type(error).__name__}: {str(error).splitlines()[0]}"[:170])


def sync_in_capture():
    """What a process is good for after a capture that failed: the promise is that steps then run one by one."""
    import torch
    stream = opened("split-digits", "til", 20)
    cls = learner(True)
    method = cls(stream.spec, None, DEVICE, 0)

    def learn(j):
        task = stream.task(j)
        method.begin(task); method.learn(task)
        return method.stepped

    outcome("learning with a wait in the loss", lambda: learn(0))
    if not ON_CUDA:
        return
    outcome("torch.randn on the device", lambda: torch.randn(3, device=DEVICE).sum().item())
    outcome("torch.manual_seed", lambda: torch.manual_seed(1).initial_seed())
    outcome("torch.cuda.empty_cache", torch.cuda.empty_cache)
    outcome("the next task", lambda: learn(1))
    outcome("a good method, captured", lambda: trained("finetune", stream, 1, {})[0].stepped)
    outcome("the stream in use is the default one", lambda: torch.cuda.current_stream() == torch.cuda.default_stream())


def held_tasks():
    """HNET with a random subset of old tasks draws on the host in every step, and claims to be capturable."""
    stream = opened("split-digits", "til", 20)
    for look_ahead in (True, False):
        outcome(f"hnet held_tasks=1 look_ahead={look_ahead}",
                lambda: trained("hnet", stream, 3, {"held_tasks": 1, "look_ahead": look_ahead, "chunk": 2000})[0].stepped)


def workspaces():
    """Memory in use after each of many fits: it should not grow."""
    import gc
    import torch
    stream = opened("split-digits", "til", 10)
    found = []
    for _ in range(12):
        method, _ = trained("finetune", stream, 1, {})
        del method; gc.collect()
        found.append(round(torch.cuda.memory_allocated() / 2**20, 1) if ON_CUDA else 0.0)
    note(MiB_in_use_after_each_fit=found)


def out_of_memory():
    """How a lack of memory looks to the runner, in training of a large hypernetwork beside something that fills the GPU."""
    import torch
    from runners.process.shortage import diagnose
    from methods.shared import stepping
    if not ON_CUDA:
        return note(skipped="no GPU")
    benchmark = "split-digits" if TINY else "permuted-mnist-10"
    stream = opened(benchmark, "til", 20)
    for spare in (1 << 30, 3 << 30):
        torch.cuda.empty_cache()
        filler = torch.empty(torch.cuda.mem_get_info()[0] - spare, dtype=torch.uint8, device=DEVICE)
        try:
            method, _ = trained("hyperinterval", stream, 1, {})
            note(spare_GiB=spare >> 30, answer="trained", how=method.stepped)
        except Exception as error:
            status, reason = diagnose(error)
            note(spare_GiB=spare >> 30, raised=type(error).__name__, status=str(status), reason=reason[:160])
        method = None
        del filler
    torch.cuda.empty_cache()
    outcome("and then", lambda: trained("finetune", opened("split-digits", "til", 10), 1, {})[0].stepped)


def precision():
    """Error of the logits with TF32 convolutions, cuDNN's default, and in IEEE float32, as evaluation computes them."""
    import torch
    from methods.networks import targets
    from methods.hypernetworks.stateless import FunctionalNetwork
    torch.manual_seed(0)
    for name, shape in (("alexnet", (3, 32, 32)), ("resnet-8", (3, 32, 32))):
        network = targets.build(name, shape, 10).to(DEVICE).eval()
        flat = torch.cat([p.detach().reshape(-1) for p in network.parameters()])
        exactly = copy.deepcopy(network).double()
        target, x = FunctionalNetwork(network), torch.rand(64, *shape, device=DEVICE)
        errors = {}
        with torch.no_grad():
            exact = exactly(x.double())
            for how in ("tf32", "ieee"):
                torch.backends.cudnn.conv.fp32_precision = how
                errors[f"error_{how}"] = float((target(flat, x) - exact).abs().max())
        note(network=name, **errors, spread_of_logits=float(exact.std(1).mean()))


def scale():
    """Share of Permuted MNIST-10's full length that fits the seconds given, by the measured step."""
    seconds, found = float(sys.argv[2]), []
    for path in (STATE / "csv").glob("permuted-hyperinterval-til.csv"):
        with path.open() as file:
            found += [float(row["ms_per_step"]) for row in csv.DictReader(file)]
    if not found or seconds < 20:
        print(0)
        return
    full = 10 * 5000 * statistics.mean(found) / 1000 * 1.15 + 30
    share = min(1.0, (seconds - 30) / full)
    print(round(share, 3) if share > 0.01 else 0)


def table():
    """Everything measured so far, compactly."""
    pieces = (STATE / "pieces").read_text().splitlines() if (STATE / "pieces").exists() else []
    latest = {line.split()[0]: line for line in pieces if line.strip()}  # of a piece that was tried again the last try
    print("PIECES"); print(*latest.values(), sep="\n")
    for log in sorted((STATE / "logs").glob("tests-*.log")):
        lines = log.read_text(errors="replace").splitlines()
        print(f"\n{log.stem.upper()}", *[x for x in lines if x.startswith(("FAILED", "ERROR"))][:14], *lines[-1:], sep="\n  ")
    rows = []
    for path in sorted((STATE / "csv").glob("*.csv")):
        with path.open() as file:
            rows += list(csv.DictReader(file))
    if rows:
        shown = ("benchmark", "scenario", "method", "task", "phase", "ms_per_step", "floor_ms", "over_floor", "over_plain_loop",
                 "over_same_by_hand", "growth", "peak_MiB", "peak_over_weights", "copy_GB_per_s")
        print("\nSPEED"); print(*shown)
        for row in rows:
            print(*(row.get(key) or "-" for key in shown))
    for path in sorted((STATE / "json").glob("*.jsonl")):
        print(f"\n{path.stem.upper()}")
        for line in path.read_text().splitlines():
            values = json.loads(line); values.pop("piece")
            print("  " + "  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items()))
    cells = []
    for path in sorted((STATE / "results").glob("*/*/*/*/seed*/cell.json")):
        body = json.loads(path.read_text())
        last = None
        if (path.parent / "accuracy.csv").exists():
            with (path.parent / "accuracy.csv").open() as file:
                values = [[float(x) for x in re.findall(r"(?<![\w.])[01]?\.\d+|\b[01]\b", ",".join(r[1:]))] for r in csv.reader(file)]
            last = statistics.mean(values[-1]) if values and values[-1] else None
        seconds = body.get("seconds") or {}
        train = sum(seconds.get("train", []) or []); evaluate = sum(seconds.get("evaluate", []) or [])
        environment = body.get("environment") or {}
        cells.append(f"  {path.parts[-6]} {body['benchmark']} {body['scenario']} {body.get('label') or body['method']} seed {body['seed']}: "
                     f"{body['status']} {body.get('reason') or ''} ACC {last if last is None else round(100 * last, 2)} train {train:.1f} s "
                     f"evaluate {evaluate:.1f} s steps={environment.get('steps')} output_layer={environment.get('output_layer')} "
                     f"memory {body.get('memory_bytes')}")
    if cells:
        print("\nCELLS", *cells, sep="\n")


if __name__ == "__main__":
    if PIECE not in ("table", "scale"):
        logging.basicConfig(level=logging.WARNING)
        (STATE / "json" / f"{PIECE}.jsonl").unlink(missing_ok=True)
        if PIECE != "env":
            from runners.process import cpu
            cpu.prepare(1 if TINY else 2)
    globals()[PIECE]()
PYTHON

wanted=("$@")
[ ${#wanted[@]} -eq 0 ] && wanted=(env tests kernels equality speed cells traps permuted workers tune)
for piece in "${wanted[@]}"; do
    "piece_$piece"
done
collect
echo
echo "============================== TABLE (also in \$OUT/table.txt) =============================="
cat "$OUT/table.txt"
echo "first_run: $(($(date +%s) - BEGUN)) s of $BUDGET s"
