"Whatever is done piece by piece gives what it would give at once: on, below and above each size."
import numpy as np, pytest, torch
from dataclasses import replace
from conftest import PAPERS_LEARNERS
from m2vaal_nb.interop.tensorboard import picked_images
from m2vaal_nb.foundations.chance import epoch_rows
from m2vaal_nb.loop import Job, Training, fresh_nets, predict, run, start_pool, view_pool
from m2vaal_nb.losses import LEARNERS
from m2vaal_nb.own_images.query import view_blocks
from m2vaal_nb.paper.fig3 import reconstruct
from m2vaal_nb.paper.pictures import latent_map
from m2vaal_nb.scale.benchmark import made_up
from m2vaal_nb.scale.lockstep import run_in_lockstep
from m2vaal_nb.scale.workers import run_on_workers

@pytest.fixture
def pool(few, tiny): return start_pool(few, tiny, 0)[0]

def close(a, b): return torch.allclose(torch.as_tensor(a).float(), torch.as_tensor(b).float(), atol=1e-5)
def nets_of(name, pool, tiny): return fresh_nets(LEARNERS[name], Training(pool, tiny, 0, 0))

@pytest.mark.parametrize('name', PAPERS_LEARNERS)
def test_predictions(name, pool, tiny):
    nets, learner, x = nets_of(name, pool, tiny), LEARNERS[name], pool.x[:40]
    whole = predict(nets, learner, x, block=40)
    for block in (1, 7, 20, 39, 41):
        some = predict(nets, learner, x, block=block)
        assert some.keys() == whole.keys() and all(close(some[k], whole[k]) for k in whole)
    assert all(len(v) == 0 for v in predict(nets, learner, x[:0]).values())

@pytest.mark.parametrize('n', [499, 500, 501, 1001])
def test_blocks_of_500(n, pool, tiny):
    nets, learner = nets_of('m2_vaal', pool, tiny), LEARNERS['m2_vaal']
    whole, found = predict(nets, learner, pool.x[:n], block=n), predict(nets, learner, pool.x[:n])
    assert all(len(found[k]) == n and close(found[k], whole[k]) for k in whole)
    drawn, guess = reconstruct(nets, learner, pool.x[:n])
    last, its_guess = reconstruct(nets, learner, pool.x[n-1:n])
    assert drawn.shape == pool.x[:n].shape and len(guess) == n and close(drawn[-1:], last) and guess[-1] == its_guess[0]

@pytest.mark.parametrize('left', [0, 1, 29, 30, 31])
@pytest.mark.parametrize('name', ['classifier', 'ta_vaal'])
def test_a_pool_seen_in_blocks(name, left, pool, tiny):
    nets = nets_of(name, pool, tiny)
    pool, p = replace(pool, ids=np.concatenate([pool.labelled, pool.unlabelled[:left]])), replace(tiny, learner=name)
    whole, _ = view_pool(nets, LEARNERS[name], pool, p, 3)
    for block in (1, 10, 30, 4096):
        view = view_blocks(nets, pool, p, 3, block)
        assert (view.ids == whole.ids).all() and view.seed == 3
        for k in ('p_N_C', 'z_N_D', 'd_N', 'r_N', 'z_L_D', 'y_L'):
            a, b = getattr(view, k), getattr(whole, k)
            assert (a is None) == (b is None) and (a is None or close(a, b))

@pytest.mark.parametrize('rows', [1, 7, 8, 9, 16, 31, 32, 33])
def test_rows_dealt_to_steps(rows):
    dealt = epoch_rows(np.random.default_rng(0), rows, 4, 8)
    times = np.bincount(dealt.flatten(), minlength=rows)
    assert dealt.shape == (4, 8) and len(times) == rows and times.max() - times.min() <= 1

@pytest.mark.parametrize('at_most', [1, 2, 3, 4])
def test_runs_in_a_lockstep(at_most, few, tiny, tmp_path):
    jobs = [Job(tiny, 'random', seed) for seed in range(3)]
    lines = [*run_in_lockstep(jobs, tmp_path, 'cpu', few, at_most)]
    alone = {job.seed: [*run(job, tmp_path/'alone', 'cpu', few)] for job in jobs}
    for seed,own in alone.items(): assert [l['queried'] for l in lines if l['seed'] == seed] == [l['queried'] for l in own]

def test_more_workers_than_runs(few, tiny, tmp_path):
    jobs = [Job(replace(tiny, rounds=1), 'random', seed) for seed in range(2)]
    lines = [*run_on_workers(3, jobs, tmp_path, 'cpu', few)]
    for job in jobs:
        alone = [*run(job, tmp_path/'alone', 'cpu', few)]
        assert [l['queried'] for l in lines if l['seed'] == job.seed] == [l['queried'] for l in alone]

@pytest.mark.parametrize('at_most', [1, 4, 5, 6, 64])
def test_pictures_of_a_query(at_most, few):
    line = dict(method='m', seed=0, queried=[5, 3, 8, 1, 2])
    assert torch.equal(picked_images(line, few, at_most), few.x[line['queried']][:at_most])

@pytest.mark.parametrize('n_points', [1, 49, 50, 51, 25])
def test_points_of_a_map(n_points, pool, tiny):
    pool = replace(pool, ids=np.concatenate([pool.labelled, pool.unlabelled[:50]]))
    view, _ = view_pool(nets_of('vaal', pool, tiny), LEARNERS['vaal'], pool, replace(tiny, learner='vaal'))
    drawn = latent_map(view, view.ids[:3], pool.x, n_points=n_points).axes[0].collections[0].get_offsets()
    assert n_points/2 <= len(drawn) <= n_points or len(drawn) == 50 <= n_points

@pytest.mark.parametrize('block', [1, 99, 100, 101])
def test_made_up_rows(block, monkeypatch):
    whole = made_up(100)
    monkeypatch.setattr('m2vaal_nb.samplers.BLOCK', block)
    for a,b in zip(made_up(100), whole): np.testing.assert_array_equal(a, b)
    assert np.allclose(whole[1].sum(-1), 1)
