"Every method on the real pool of 55,000 images, in two short rounds: what a few hundred images cannot show."
import numpy as np, pytest, torch
from scipy.spatial.distance import cdist
from conftest import PAPERS_METHODS
from m2vaal_nb.data import load_dataset, split_ids
from m2vaal_nb.experiments import METHODS, plan, run_grid
from m2vaal_nb.foundations.log import read_log
from m2vaal_nb.loop import Training, start_pool, train_round, view_pool
from m2vaal_nb.losses import LEARNERS
from m2vaal_nb.samplers import BLOCK, SMALL
from m2vaal_nb.scale.workers import on_workers

JOBS = {job.method: job for job in plan('fig2b', PAPERS_METHODS, rounds=2, steps=20)}

@pytest.fixture(scope='module')
def data(): return load_dataset()

@pytest.fixture(scope='module')
def logs(tmp_path_factory):
    "The one test that takes more than half a minute: all methods, with two workers."
    return run_grid([*JOBS.values()], tmp_path_factory.mktemp('real'), on_workers(2), 'cpu', say=lambda s: None)

@pytest.mark.parametrize('method', PAPERS_METHODS)
def test_every_method(method, logs, data):
    lines, (ids, val) = read_log(logs/f'{method}-0.jsonl'), split_ids(len(data.y), 5000, 0)
    assert [line['n_labelled'] for line in lines] == [500, 564, 628] and len(ids) == 55_000
    bought = np.concatenate([lines[0]['initial'], *(line['queried'] for line in lines)])
    assert len(np.unique(bought)) == len(bought) == 628 and np.isin(bought, ids).all() and not np.isin(bought, val).any()
    for line in lines[:-1]:
        assert line['queried_classes'] == np.bincount(data.y[line['queried']], minlength=10).tolist()
        assert 0 < line['test_acc'] < 1 and 0 < line['val_acc'] < 1

@pytest.fixture(scope='module')
def view(data):
    "What Kingma's M2 reveals in round 0, and its labels."
    p = JOBS['algorithm_1'].protocol
    pool, _ = start_pool(data, p, 0)
    t = Training(pool, p, 0, 0)
    nets, _ = train_round(t)
    return view_pool(nets, LEARNERS[p.learner], pool, p, t.query_seed)[0]

@pytest.mark.parametrize('method', ['algorithm_1', 'algorithm_2'])
def test_the_paper_s_algorithms_picked_the_farthest(method, logs, view):
    "Distances by SciPy; a cluster of more than one block of rows, in a pool that is held."
    z, q, y = view.z_N_D.double().numpy(), *(t.numpy() for t in view.p_N_C.double().max(-1))
    assert np.bincount(y).max() > BLOCK and z.size <= SMALL
    rows = np.searchsorted(view.ids, read_log(logs/f'{method}-0.jsonl')[0]['queried'])
    left, far = np.ones(len(z), bool), np.zeros(len(z))
    of_class, anchors = [y == c for c in range(10)], [view.z_L_D[torch.as_tensor(view.y_L == c)].double().numpy() for c in range(10)]
    for here,a in zip(of_class, anchors):
        if len(a): far[here] = cdist(z[here], a).sum(-1)
    seen = [len(a) > 0 for a in anchors]
    for row in rows:
        c, score = y[row], np.full(len(z), -np.inf)
        for k,here in enumerate(of_class):
            now = here & left
            if method == 'algorithm_1' and k == c: score[now] = far[now]
            if method == 'algorithm_2' and now.any(): score[now] = (1 - q[now])*(far[now]/far[now].max() if seen[k] else 1)
        assert np.isclose(score[row], score.max(), rtol=1e-9)
        left[row], seen[c] = False, True
        far[of_class[c]] += cdist(z[of_class[c]], z[row:row+1])[:,0]
