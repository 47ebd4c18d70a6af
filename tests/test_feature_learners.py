"Learners on features: Poisson learning against a dense pseudo-inverse, M2 against brute force over classes, and both at their edges."
import math
from dataclasses import replace
from types import SimpleNamespace
import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import connected_components
from m2vaal_nb.beyond import m1m2, propagation as prop
from m2vaal_nb.beyond.feature_learners import fit_head
from m2vaal_nb.beyond.m1m2 import M2, M2Recipe, class_cost, unlabelled_cost
from m2vaal_nb.cli import engine_for
from m2vaal_nb.data import Dataset, Pool, lookup
from m2vaal_nb.losses import LEARNERS
from m2vaal_nb.loop import Job, Protocol, Training, run, train_round, view_pool
from m2vaal_nb.paper.revisit import rewind
from m2vaal_nb.scale.cluster import Driver
from m2vaal_nb.scale.lockstep import run_in_lockstep

OURS = 'propagation', 'm1m2', 'm1m2_graph'

@pytest.fixture(autouse=True)
def short(monkeypatch):
    "M2 trained briefly."
    for name,recipe in (('m1m2', M2Recipe(steps=30)), ('m1m2_graph', replace(m1m2.GRAPH, steps=30))):
        fit = LEARNERS[name].fit
        monkeypatch.setitem(LEARNERS, name, replace(LEARNERS[name], fit=lambda t, fit=fit, r=recipe: fit(t, r)))

def clouds(n=240, n_classes=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = np.arange(n) % n_classes
    return torch.nn.functional.normalize(4*torch.eye(6)[y] + torch.randn(n, 6, generator=g), dim=-1), y

def training(h, y, labelled, n_classes, learner, ids=None, seed=0, round=0):
    ids = np.arange(len(h)) if ids is None else ids
    pool = Pool(h, ids, lookup(y), tuple(map(str, range(n_classes)))).reveal(labelled)
    return Training(pool, Protocol(learner=learner), seed, round)

def fitted(t): return train_round(t)[0]

def sums_to_1(p): torch.testing.assert_close(p.sum(1), torch.ones(len(p)), atol=1e-5, rtol=0)

# --- the graph ---
@pytest.mark.parametrize('k', [1, 3, 7])
def test_neighbours_are_those_of_all_distances(k):
    h, _ = clouds()
    rows, d = prop.nearest_rows(h, h[:600], k)
    want = torch.cdist(h.double(), h.double()).square()
    torch.testing.assert_close(d.double(), want.sort(1).values[:,:k], atol=1e-5, rtol=0)
    torch.testing.assert_close(want.gather(1, rows.long()), want.sort(1).values[:,:k], atol=1e-5, rtol=0)

def test_edges_against_the_formula():
    h, _ = clouds(30)
    d = torch.cdist(h.double(), h.double()).square().fill_diagonal_(math.inf)
    W = np.zeros((30, 30))
    for i,row in enumerate(d):
        for j in row.argsort()[:5]: W[i,j] = math.exp(-4*row[j]/row.sort().values[4])
    np.testing.assert_allclose(prop.graph_of(h, 5).toarray(), (W + W.T)/2, atol=1e-4)

@pytest.mark.parametrize('k', [9, 10, 500])
def test_as_many_neighbours_as_rows(k):
    h, y = clouds(10)
    W = prop.graph_of(h, k)
    assert W.nnz == 90 and not W.diagonal().any()
    sums_to_1(prop.propagate(h, [0, 1, 2], y[:3], 3, k))

@pytest.mark.parametrize('edge,kept', [(239*240, True), (240*240, True), (240*240 + 1, False)])
def test_what_is_kept(edge, kept, monkeypatch, tmp_path):
    h, _ = clouds()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(prop, 'KEPT', edge)
    first = prop.neighbours_of(h, h, 4)
    assert prop.neighbours_file(h, h, 4).exists() == kept
    again = prop.neighbours_of(h, h, 4)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    other = h + 0
    other[0,0] += .5
    assert not prop.neighbours_file(other, h, 4).exists() and not prop.neighbours_file(h, h, 5).exists()

def test_damaged_neighbours_are_named(monkeypatch, tmp_path):
    h, _ = clouds()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(prop, 'KEPT', 1)
    prop.neighbours_of(h, h, 4)
    prop.neighbours_file(h, h, 4).write_bytes(b'nothing')
    with pytest.raises(ValueError, match='is damaged'): prop.neighbours_of(h, h, 4)

# --- Poisson learning ---
@pytest.mark.parametrize('far', [0, 100], ids=['one part', 'two parts'])
def test_poisson_against_a_pseudo_inverse(far):
    h, y = clouds(80)
    h = torch.cat([h, h.flip(1)[:40] + far])
    W = prop.graph_of(h, 8)
    n, part = connected_components(W)
    assert (n > 1) == bool(far)
    source = np.random.default_rng(0).standard_normal((120, 3))*(np.arange(120) % 7 == 0)[:,None]
    source -= prop.part_means(part, source, np.ones(120))[part]
    u, degree = prop.poisson(W, part, source, rtol=1e-12, dtype=float), np.ravel(W.sum(1))
    want = np.linalg.pinv(np.diag(degree) - W.toarray()) @ source
    for i in range(n): want[part == i] -= np.average(want[part == i], 0, weights=degree[part == i])
    np.testing.assert_allclose(u, want, atol=1e-7)

def test_every_class_has_the_same_mass_before_rows_sum_to_1():
    u = np.random.default_rng(0).standard_normal((500, 4))
    u -= u.mean(1, keepdims=True)
    p = prop.shares_of(u, np.full((500, 4), .25))
    plain = np.maximum(u, 0)/np.maximum(u, 0).sum(1, keepdims=True)
    want = plain/plain.mean(0)
    np.testing.assert_allclose(p, want/want.sum(1, keepdims=True))

def test_parts_without_a_label_and_with_one_class():
    h, _ = clouds(30, 1)
    h = torch.cat([h, h + 50, h - 50])
    p = prop.propagate(h, [0, 1, 31], [0, 1, 1], 3, k=5)
    sums_to_1(p)
    assert (p[:,2] == 0).all()                                     # nobody has seen class 2
    assert len(p[60:].unique(dim=0)) == 1                          # nothing is known there,
    assert (p[30:60] == torch.tensor([0., 1., 0.])).all()          # and here there is but one class

@pytest.mark.parametrize('copies', [2, 11, 40])
def test_copies_of_rows(copies):
    h, y = clouds(6)
    h, y = h.repeat(copies, 1), np.tile(y, copies)
    p = prop.propagate(h, range(6), y[:6], 3)
    sums_to_1(p)
    assert torch.isfinite(p).all()
    same = prop.Propagated(h, p)(h)
    sums_to_1(same)

def test_two_labels_and_one_row():
    h, y = clouds(60, 2)
    p = prop.propagate(h, [0, 1], y[:2], 2)
    assert (p.argmax(1).numpy() == y).mean() > .95
    assert prop.propagate(h[:1], [0], [1], 2).tolist() == [[0, 1]]

def test_labels_everywhere_and_nowhere():
    h, y = clouds(60)
    p = prop.propagate(h, range(60), y, 3)
    assert (p.argmax(1).numpy() == y).mean() > .9
    with pytest.raises(ValueError, match='Propagation needs a label'): prop.propagate(h, [], [], 3)

def test_a_row_from_elsewhere_helps_no_other():
    h, y = clouds()
    spread = prop.Propagated(h[:200], prop.propagate(h[:200], [0, 1, 2], y[:3], 3))
    together = spread(h)
    torch.testing.assert_close(together[220:], spread(h[220:]), atol=1e-4, rtol=0)
    assert torch.equal(together[:200], spread.p_N_C)
    assert spread(h[:0]).shape == (0, 3)

# --- M2 ---
@pytest.mark.parametrize('C', [1, 2, 5])
def test_bound_against_brute_force(C):
    from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence
    torch.manual_seed(0)
    net = M2(4, C, n_latent=3)
    net.logvar.data.normal_()
    x, eps = torch.randn(7, 4), torch.randn(7, C, 3)
    log_q, log_prior = (torch.randn(7, C).log_softmax(-1) for _ in range(2))
    got = unlabelled_cost(class_cost(net, x[:,None], torch.eye(C), eps), log_q, log_prior)
    for i in range(7):
        want = 0.
        for c in range(C):
            y = torch.eye(C)[c]
            mu, logvar = net.encode(x[i], y)
            q_z = Independent(Normal(mu, (logvar/2).exp()), 1)
            p_z = Independent(Normal(torch.zeros(3), 1.), 1)
            p_x = MultivariateNormal(net.decode(y, mu + (logvar/2).exp()*eps[i,c]), net.logvar.exp().diag())
            one = kl_divergence(q_z, p_z) - p_x.log_prob(x[i]) - log_prior[i,c]
            want = want + log_q[i,c].exp()*(one + log_q[i,c])
        torch.testing.assert_close(got[i], want, atol=1e-3, rtol=1e-4)

def test_divergence_is_one_sentence():
    h, y = clouds()
    with pytest.raises(ValueError, match='M2 diverged') as e:
        m1m2.fit_guess(training(h, y, np.arange(6), 3, 'm1m2'), M2Recipe(steps=5, lr=1e30))
    assert '\n' not in str(e.value)

# --- as learners ---
@pytest.mark.parametrize('learner', OURS)
def test_the_same_numbers_on_any_number_of_threads(learner):
    h, y = clouds()
    t = training(h, y, np.arange(9), 3, learner)
    first = fitted(t).predict(h)
    state = torch.get_rng_state()
    torch.set_num_threads(4)
    again = fitted(t).predict(h)
    assert torch.get_num_threads() == 4
    torch.set_num_threads(1)
    assert torch.equal(torch.get_rng_state(), state)
    for k in 'pzd': assert torch.equal(first[k], again[k])
    if learner != 'propagation':
        other = fitted(replace(t, seed=1)).predict(h)
        assert not torch.equal(first['p'], other['p'])

@pytest.mark.parametrize('learner', OURS)
def test_no_row_is_left(learner):
    h, y = clouds(30)
    t = training(h, y, np.arange(30), 3, learner)
    model = fitted(t)
    view, d_L = view_pool(model, t.learner, t.pool, t.protocol)
    assert len(view) == 0 and (d_L == .5).all()
    sums_to_1(model.predict(h)['p'])

@pytest.mark.parametrize('learner', OURS)
@pytest.mark.parametrize('n_classes', [1, 3])
def test_one_class(learner, n_classes):
    h, y = clouds(60)
    p = fitted(training(h, 0*y, np.arange(5), n_classes, learner)).predict(h)['p']
    assert (p[:,0] == 1).all() and p.shape == (60, n_classes)

@pytest.mark.parametrize('learner', OURS)
def test_a_feature_that_never_changes(learner):
    h, y = clouds()
    h[:,5] = 0
    sums_to_1(fitted(training(h, y, np.arange(6), 3, learner)).predict(h)['p'])

@pytest.mark.parametrize('learner', OURS)
def test_rows_outside_the_pool_lend_no_labels(learner):
    "Validation rows are in the graph, but their labels are not asked for."
    h, y = clouds()
    asked = []
    def oracle(ids):
        asked.extend(ids)
        return y[ids]
    pool = Pool(h, np.arange(200), oracle, tuple('abc')).reveal(np.arange(12))
    model = fitted(Training(pool, Protocol(learner=learner), 0, 0))
    assert asked == list(range(12))
    assert (model.predict(h[200:])['p'].argmax(1).numpy() == y[200:]).mean() > .8

@pytest.mark.parametrize('n_features', [255, 256, 257])
def test_two_classes_on_either_side_of_where_the_solver_changes(n_features):
    from sklearn.linear_model import LogisticRegression
    g = np.random.default_rng(0)
    h = g.normal(size=(60, n_features)).astype('f4')/n_features**.5
    y = np.arange(60) % 2
    theirs = LogisticRegression(C=10., tol=1e-9, max_iter=10_000).fit(h, y).predict_proba(h)
    np.testing.assert_allclose(fit_head(h, y, 2, C=10.)(torch.from_numpy(h)), theirs, atol=5e-3) # where L-BFGS stops by default

# --- features are on the CPU, whatever else a machine has ---
@pytest.fixture
def with_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda *_: 'a GPU')

def jobs_on(learner, n=8): return [Job(Protocol(learner=learner), 'some', seed) for seed in range(n)]

def test_a_gpu_is_for_what_trains_on_images(with_a_gpu, monkeypatch):
    monkeypatch.setattr('m2vaal_nb.foundations.machine.n_cores', lambda: 4)
    for device in 'auto', 'cuda':
        assert engine_for('auto', jobs_on('linear'), device).at_once == 4
        assert engine_for('auto', jobs_on('classifier'), device).lines.func is run_in_lockstep
    assert engine_for('auto', jobs_on('classifier'), 'cpu').at_once == 4

def test_a_run_on_features_goes_on_where_it_was_begun(with_a_gpu, tmp_path, recwarn):
    h, y = clouds(90)
    p = Protocol(learner='linear', sampler='margin', n_init=6, budget=4, max_labels=18, n_val=10)
    data = Dataset(h, y, h[:30], y[:30], tuple('abc'))
    for rounds in (1, 3): lines = list(run(Job(replace(p, rounds=rounds), 'linear', 0), tmp_path, 'auto', data))
    assert [line['round'] for line in lines] == [1, 2, 3] and {line['host']['gpu'] for line in lines} == {None}
    list(run_in_lockstep([Job(replace(p, rounds=1), 'linear', 1)], tmp_path, 'auto', data))
    rewind(tmp_path/'linear-0.jsonl', 1, 'auto', data)
    assert not [w for w in recwarn if 'goes on with' in str(w.message)]

class Ray:
    "Stands in for Ray's module: an actor says what was asked for it."
    def remote(self, actor): return self
    def options(self, **asked):
        self.asked = asked
        return SimpleNamespace(remote=self.start)
    def start(self, job, lines, device, images, known):
        self.device = device
        return SimpleNamespace(next=SimpleNamespace(remote=object))

def test_a_cluster_keeps_its_gpus_for_what_trains_on_images(tmp_path):
    ray = Ray()
    driver = Driver(ray, 'cuda', dict(fashion_mnist=None), None)
    found = {}
    for learner in 'linear', 'classifier':
        driver.start(jobs_on(learner)[0], tmp_path, [])
        found[learner] = ray.asked['num_gpus'], ray.device
    assert found == dict(linear=(0, 'cpu'), classifier=(1, 'cuda'))
