"The strategies on features as guests in scikit-activeml: its own picks where the rule is the same, and utilities against brute force. The contract and its template are in test_adapters."
import pickle
from functools import partial
import numpy as np, pytest, torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from m2vaal_nb.beyond import cover, guests, strategies as s
from m2vaal_nb.beyond.cover import SIGMA, ball, cover_gains, cover_rows, gauss
from m2vaal_nb.beyond.doubt_herding import DensityRatio, doubt_herding, doubt_weights
from m2vaal_nb.data import PoolView
from m2vaal_nb.interop.views import GAINS, utilities
from m2vaal_nb.samplers import SAMPLERS
from test_adapters import FEATURES, OURS
pool = pytest.importorskip('skactiveml.pool', reason='scikit-activeml is not installed')
from skactiveml.classifier import SklearnClassifier
from m2vaal_nb.interop.scikit_activeml import SamplerStrategy

WING = 'badge', 'coreset', 'typiclust', 'probcover', 'max_herding', 'uherding', 'power_margin', 'cluster_margin', 'doubt_herding'
seeds = pytest.mark.parametrize('seed', range(12))

def a_pool(seed, n=70, tied=False):
    "Rows, labels partly known (none of them in every fourth case), the classifier; on a grid with `tied`."
    g = np.random.default_rng(seed)
    X = g.integers(0, 4, (n, 2)).astype(float) if tied else g.normal(size=(n, 3))*10.**(seed % 3)
    y = np.full(n, np.nan)
    known = g.permutation(n)[:(seed % 4)*4]
    y[known] = known % 3
    return X, y, SklearnClassifier(LogisticRegression(max_iter=5000), classes=[0, 1, 2], random_state=0)

def view_of_pool(seed, **kw):
    X, y, _ = a_pool(seed, **kw)
    g, free = np.random.default_rng(seed), np.isnan(y)
    return PoolView(np.flatnonzero(free), seed, g.dirichlet([1, 1, 1], free.sum()), X[free], z_L_D=X[~free], y_L=y[~free].astype(int))

def worth(view, f, n=9):
    "What a sampler picked, and what each row was worth in front of it."
    rows = np.searchsorted(view.ids, f(view, n))
    return rows, np.array([*utilities(view, f, rows)])

def unit(X): return X/np.linalg.norm(X, axis=1, keepdims=True)

# --- beside scikit-activeml's own ---
@seeds
def test_coreset_is_theirs(seed):
    "Picks and utilities; where nothing is labelled the first pick is chance's in either package."
    X, y, _ = a_pool(seed)
    if np.isnan(y).all(): y[0] = 0
    rows, u = SamplerStrategy('coreset', random_state=seed).query(X, y, batch_size=12, return_utilities=True)
    others, v = pool.CoreSet(random_state=seed).query(X, y, batch_size=12, return_utilities=True)
    assert (rows == others).all()
    np.testing.assert_allclose(u, v, rtol=1e-6, atol=1e-7*X.std())

@seeds
def test_max_herding_is_theirs(seed):
    X, y, _ = a_pool(seed)
    theirs = pool.MaxHerding(metric_dict=dict(gamma=1/SIGMA**2), random_state=seed)
    rows, u = SamplerStrategy('max_herding', embed=unit, random_state=seed).query(X, y, batch_size=12, return_utilities=True)
    others, v = theirs.query(X, y, batch_size=12, return_utilities=True)
    v *= np.isnan(y).sum()                      # theirs are means
    same = int(np.argmin([*(rows == others), False]))       # picks before the first that differs
    np.testing.assert_allclose(u[:same+1], v[:same+1], atol=1e-9)
    if same < 12: assert u[same, rows[same]] == pytest.approx(v[same, others[same]])      # a tie
    assert same > 3

@seeds
@pytest.mark.filterwarnings('ignore:.*could not be fitted')
def test_badge_begins_like_theirs(seed):
    X, y, clf = a_pool(seed)
    rows, u = SamplerStrategy('badge', random_state=seed).query(X, y, clf, batch_size=2, return_utilities=True)
    others, v = pool.Badge(random_state=seed).query(X, y, clf, batch_size=2, return_utilities=True)
    assert rows[0] == others[0] or u[0, rows[0]] == pytest.approx(u[0, others[0]])
    np.testing.assert_allclose(u[0], v[0], rtol=1e-4, atol=1e-7)

@pytest.mark.parametrize('name', FEATURES)
def test_features_need_no_classifier(name):
    "With one, fitted there or before, they pick what they pick without."
    X, y, clf = a_pool(3)
    def picks(**kw): return SamplerStrategy(name, random_state=2).query(X, y, batch_size=9, **kw).tolist()
    assert picks() == picks(clf=clf) == picks(clf=clf.fit(X, y), fit_clf=False)

@pytest.mark.parametrize('name', sorted({*OURS} - {*FEATURES}))
def test_doubt_needs_a_classifier(name):
    X, y, _ = a_pool(3)
    with pytest.raises(ValueError, match='give `clf`'): SamplerStrategy(name).query(X, y)

def test_labels_of_any_kind_without_a_classifier():
    X, y, _ = a_pool(3)
    named = np.array([None if np.isnan(c) else 'abc'[int(c)] for c in y], object)
    assert SamplerStrategy('coreset', missing_label=None, random_state=1).query(X, named) == SamplerStrategy('coreset', random_state=1).query(X, y)

@pytest.mark.parametrize('name', WING)
def test_a_pool_of_one(name):
    X, y, clf = a_pool(3)
    row = np.flatnonzero(np.isnan(y))[:1]
    picks, u = SamplerStrategy(name).query(X, y, clf, candidates=row, return_utilities=True)
    assert picks == row and np.isfinite(u[0]).sum() == 1

# --- utilities ---
@pytest.mark.parametrize('name', sorted({*WING} - {'badge', 'cluster_margin'}))
@pytest.mark.parametrize('tied', [False, True])
@seeds
def test_each_pick_was_the_best(name, tied, seed):
    view = view_of_pool(seed, tied=tied)
    rows, u = worth(view, SAMPLERS[name])
    best = np.nanmax(u, 1)
    finite = np.isfinite(best)
    np.testing.assert_allclose(u[range(9), rows][finite], best[finite], rtol=1e-6, atol=1e-8)
    assert (u[range(9), rows][~finite] == -np.inf).all()
    for i in range(9): assert set(np.flatnonzero(np.isnan(u[i]))) == {*rows[:i]}

@seeds
def test_distances_by_brute_force(seed):
    view = view_of_pool(seed, tied=seed % 2)
    rows, u = worth(view, s.coreset)
    z, anchors = view.z_N_D.numpy(), [*view.z_L_D.numpy()]
    for i,row in enumerate(rows):
        far = np.min([np.linalg.norm(z - a, axis=1) for a in anchors], 0) if anchors else np.zeros(len(z))
        there = ~np.isnan(u[i])
        np.testing.assert_allclose(u[i][there], far[there], rtol=1e-9, atol=1e-6)
        anchors.append(z[row])

@seeds
def test_chances_by_brute_force(seed):
    view = view_of_pool(seed)
    rows, u = worth(view, s.badge)
    p, z = view.p_N_C.numpy(), view.z_N_D.numpy()
    grad = ((p - np.eye(3)[p.argmax(1)])[:,:,None]*z[:,None]).reshape(len(z), -1)
    want = (grad**2).sum(1)
    for i,row in enumerate(rows):
        there = ~np.isnan(u[i])
        np.testing.assert_allclose(u[i][there], (want/want.sum())[there], rtol=1e-3, atol=1e-6)
        far = ((grad - grad[row])**2).sum(1)
        want = np.minimum(want, far) if i else far
        want[rows[:i+1]] = 0

def test_chances_where_all_gradients_are_equal():
    "None is farther than another: each that is left has the same chance."
    view = PoolView(np.arange(5), p_N_C=np.full((5, 2), .5), z_N_D=np.ones((5, 2)))
    rows, u = worth(view, s.badge, 5)
    for i in range(5): np.testing.assert_allclose(u[i][~np.isnan(u[i])], 1/5 if i == 0 else 1/(5 - i))

@pytest.mark.parametrize('name', ['probcover', 'max_herding', 'uherding', 'doubt_herding', 'doubt_area'])
@seeds
def test_gains_by_brute_force(name, seed):
    view = view_of_pool(seed)
    rows, u = worth(view, SAMPLERS[name])
    D = guests.tell_labelled(view.z_N_D, view.z_L_D, seed=view.seed)
    first, second = view.p_N_C.topk(2).values.T
    weights = dict(doubt_area=1 - (1 - max(0, 2*D.auc - 1)**2)*(first - second),
                   doubt_herding=doubt_weights(view.z_N_D, view.p_N_C, view.z_L_D, view.seed, guests.tell_labelled))
    terms = s.COVERS[name](view) if name not in weights else dict(kernel=gauss, width=SIGMA, weight_U=weights[name])
    z, weight = view.z_N_D.double(), torch.as_tensor(terms.get('weight_U', np.ones(len(view)))).double()
    def k(a): return terms['kernel']((torch.cdist(z, a, compute_mode='donot_use_mm_for_euclid_dist')/terms['width'])**2)
    most = k(view.z_L_D.double()).amax(1) if len(view.z_L_D) else torch.zeros(len(z)).double()
    for i,row in enumerate(rows):
        gain = (weight/weight.max())@(k(z) - most[:,None]).clamp_min(0)
        there = ~np.isnan(u[i])
        np.testing.assert_allclose(u[i][there], gain.numpy()[there], rtol=1e-6, atol=1e-6)
        most = torch.maximum(most, k(z[[row]])[:,0])

@pytest.mark.parametrize('n_candidates', [None, 30])
@pytest.mark.parametrize('n_reference', [None, 20, 90])
@pytest.mark.parametrize('kernel, width', [(gauss, .7), (ball, 1.)])
def test_gains_where_rows_are_drawn(n_reference, n_candidates, kernel, width):
    "The search and its gains draw the same rows; what was not drawn is worth −∞."
    g = np.random.default_rng(0)
    z, z_L, weight = g.normal(size=(80, 2)), g.normal(size=(3, 2)), g.random(80)
    how = dict(weight_U=weight, n_reference=n_reference, n_candidates=n_candidates, seed=4)
    rows = cover_rows(z, z_L, 6, kernel, width, **how)
    u = np.array([*cover_gains(rows, z, z_L, kernel, width, **how)])
    np.testing.assert_allclose(u[range(6), rows], [np.delete(u[i], rows[:i]).max() for i in range(6)], rtol=1e-4)
    assert (np.isinf(u).any() == (n_candidates is not None)) and (u[0] > -1).sum() >= min(n_candidates or 80, 80)*.5

def test_typicality_stops_at_a_crowd(monkeypatch):
    "Beyond it, rows of a cluster are not compared."
    for module in s, guests: monkeypatch.setattr(module, 'CROWD', 5)
    rows, u = worth(view_of_pool(1), s.typiclust)
    assert all((u[i] > -np.inf).sum() <= 5 for i in range(9))
    np.testing.assert_allclose(u[range(9), rows], np.nanmax(u, 1))

def test_settings_of_a_partial_sampler_are_kept():
    view = view_of_pool(3)
    f = partial(doubt_herding, sigma=.2, tell=DensityRatio)
    (rows, u), (_, v) = worth(view, f), worth(view, doubt_herding)
    np.testing.assert_allclose(u[range(9), rows], np.nanmax(u, 1), rtol=1e-6)
    assert not np.allclose(u[0], v[0])

def test_all_but_one_tell_their_gains():
    assert {SAMPLERS[name] for name in WING} - GAINS.keys() == {s.cluster_margin}
    rows, u = worth(view_of_pool(3), s.cluster_margin)
    assert (np.nansum(u, 1) == 1).all() and (u[range(9), rows] == 1).all()

def test_threads_come_back():
    "Between two utilities, whoever asks has as many as before."
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for name in WING:
            view = view_of_pool(3)
            rows = np.searchsorted(view.ids, SAMPLERS[name](view, 3))
            for _ in utilities(view, SAMPLERS[name], rows): assert torch.get_num_threads() == 3
    finally: torch.set_num_threads(before)

@pytest.mark.parametrize('name', WING)
def test_the_same_seed_picks_the_same(name):
    "However `random_state` is given; and a copy, or one from another process, is as good."
    X, y, clf = a_pool(3, tied=True)
    one = SamplerStrategy(name, random_state=5)
    def picks(strategy): return strategy.query(X, y, clf, batch_size=8).tolist()
    first = picks(one)
    assert first == picks(one) == picks(clone(one)) == picks(pickle.loads(pickle.dumps(one))) == picks(SamplerStrategy(name, random_state=np.random.RandomState(5)))
    assert any(picks(SamplerStrategy(name, random_state=other)) != first for other in range(8))
