import os, shutil, subprocess, sys
from pathlib import Path
import pytest
from m2vaal_nb.experiments import METHODS
from m2vaal_nb.foundations.names import add_all_names
from m2vaal_nb.losses import LEARNERS
from m2vaal_nb.samplers import SAMPLERS

# The paper's, before the wing beyond it adds its own to the same tables; test_beyond and test_strategies test those.
PAPERS_METHODS, PAPERS_LEARNERS, PAPERS_SAMPLERS = map(tuple, (METHODS, LEARNERS, SAMPLERS))
add_all_names() # or a test that asks for a name would add them for those after it

ROOT = Path(__file__).resolve().parent.parent
NBS = sorted(o for o in (ROOT/'nbs').rglob('*.ipynb') if not any(part[0] in '._' for part in o.relative_to(ROOT).parts))
JUNK = shutil.ignore_patterns('.*', '_proc', '_docs', '__pycache__', 'out', 'results', 'build', 'dist', '*.egg-info')

def sh(*cmd, cwd, **env):
    "Run `cmd`; the first word may be a script of this Python's environment. Fails with all it printed."
    script = Path(sys.executable).with_name(cmd[0])
    res = subprocess.run([script if script.exists() else cmd[0], *cmd[1:]], cwd=cwd, env={**os.environ, **env},
                         text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert res.returncode == 0, f"{' '.join(map(str, cmd))}\n{res.stdout}"
    return res.stdout

@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    "A copy of the project, without data and results, to build in."
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp('copy')/'m2vaal_nb', ignore=JUNK))

@pytest.fixture(scope='session')
def few():
    "The first images of Fashion-MNIST: enough to run everything, too few to take long."
    from m2vaal_nb.data import Dataset, load_dataset
    whole = load_dataset()
    return Dataset(whole.x[:1100].clone(), whole.y[:1100], whole.x_test[:200].clone(), whole.y_test[:200], whole.classes)

@pytest.fixture
def tiny():
    "The smallest protocol that still queries twice, the second time for less."
    from m2vaal_nb.loop import Protocol
    return Protocol(n_init=20, budget=8, max_labels=32, steps=2, batch=8, n_val=50)
