"""Our samplers in scikit-activeml and modAL, and theirs in our loop.

scikit-activeml's own template test runs too where it can be found: releases since 0.6.2 leave their tests out, so name a folder
that holds the package with them in $SKACTIVEML_TESTS, for example after `pip install --no-deps --target FOLDER scikit-activeml==0.6.1`.
Only the tests are taken from there; what is tested runs in the installed release."""
import os, pickle, subprocess, sys, unittest
from dataclasses import replace
from functools import partial
from pathlib import Path
import numpy as np, pytest, sklearn, torch
from sklearn.linear_model import LogisticRegression
from m2vaal_nb import samplers
from m2vaal_nb.beyond import guests                # the strategies on features, and their utilities
from m2vaal_nb.interop.modal import modal_query
from m2vaal_nb.interop.scikit_activeml import SamplerStrategy, as_sampler
from m2vaal_nb.interop.views import check_rows, utilities, view_of
from m2vaal_nb.data import PoolView
from m2vaal_nb.samplers import SAMPLERS

OURS = ('random', 'least_confidence', 'margin', 'entropy', 'class_anchors', 'weighted_anchors', 'badge', 'coreset', 'typiclust', 'probcover',
    'max_herding', 'uherding', 'power_margin', 'cluster_margin', 'doubt_herding')
FEATURES = 'random', 'coreset', 'typiclust', 'max_herding'      # these look at no probabilities
every = pytest.mark.parametrize('name', OURS)
try: import skactiveml
except ImportError: skactiveml = None
else:
    if found := os.environ.get('SKACTIVEML_TESTS'): skactiveml.__path__.append(str(Path(found)/'skactiveml'))
needs_skactiveml = pytest.mark.skipif(skactiveml is None, reason='scikit-activeml is not installed')

@pytest.fixture
def blobs():
    "Ninety rows in three clusters, and which nine of them are labelled."
    g = np.random.default_rng(0)
    y = np.arange(90) % 3
    X = np.array([[0., 0], [3, 0], [0, 3]])[y] + g.normal(size=(90, 2))
    return X, y, np.arange(9)

def missing(y, known, missing_label=np.nan, dtype=float, names=None):
    out = np.full(len(y), missing_label, dtype=dtype)
    out[known] = y[known] if names is None else np.array(names)[y[known]]
    return out

def parzen(**kw):
    from skactiveml.classifier import ParzenWindowClassifier
    return ParzenWindowClassifier(**dict(classes=[0, 1, 2], random_state=0) | kw)

@needs_skactiveml
@every
@pytest.mark.parametrize('how', ['unlabelled', 'indices', 'rows'])
def test_skactiveml_contract(blobs, name, how):
    "Indices and utilities of the right space and shape, each pick the best that was left, the same again with the same seed."
    X, y, known = blobs
    some = np.arange(20, 60)
    candidates, at, n = dict(unlabelled=(None, np.arange(9, 90), 90), indices=(some, some, 90), rows=(X[some], np.arange(40), 40))[how]
    strategy = SamplerStrategy(name, random_state=3)
    picks, u = strategy.query(X, missing(y, known), parzen(), candidates=candidates, batch_size=7, return_utilities=True)
    assert picks.dtype.kind == 'i' and len(set(picks)) == 7 and set(picks) <= set(at) and u.shape == (7, n)
    if name != 'badge': np.testing.assert_allclose(u[range(7), picks], np.nanmax(u, 1), rtol=1e-8)
    else: assert np.nanargmax(u[0]) == picks[0] and (u[range(7), picks] > 0).all()     # it draws the rest
    for i in range(7): assert set(np.flatnonzero(~np.isnan(u[i]))) == set(at) - set(picks[:i])
    assert (strategy.query(X, missing(y, known), parzen(), candidates=candidates, batch_size=7) == picks).all()

@needs_skactiveml
@every
def test_skactiveml_shows_the_sampler_what_there_is(blobs, name):
    "The view that a strategy builds, against one built by hand."
    X, y, known = blobs
    clf, rest, seen = parzen().fit(X, missing(y, known)), np.arange(9, 90), []
    def spy(view, budget): seen.append(view); return SAMPLERS[name](view, budget)
    picks = SamplerStrategy(spy, random_state=3).query(X, missing(y, known), clf, fit_clf=False, batch_size=6)
    hand = PoolView(rest, seen[0].seed, torch.tensor(clf.predict_proba(X[rest])), torch.tensor(X[rest]), z_L_D=torch.tensor(X[known]), y_L=y[known])
    for f in ('p_N_C', 'z_N_D', 'z_L_D', 'y_L'): np.testing.assert_array_equal(getattr(seen[0], f), getattr(hand, f))
    assert (SAMPLERS[name](hand, 6) == picks).all()

@needs_skactiveml
@every
def test_skactiveml_seed_breaks_ties(name):
    "Where all rows are alike, the pick depends on random_state and on nothing else."
    X, y = np.zeros((30, 2)), np.array([0, 1, 2] + [np.nan]*27)
    def pick(state): return SamplerStrategy(name, random_state=state).query(X, y, parzen())[0]
    assert pick(1) == pick(1) == pick(np.random.RandomState(1)) and len({pick(i) for i in range(8)}) > 3

@needs_skactiveml
@every
@pytest.mark.parametrize('missing_label, dtype, names', [(np.nan, float, None), (-1, int, None), (None, object, ['a', 'b', 'c']), ('', str, ['a', 'b', 'c'])])
def test_skactiveml_labels_of_any_type(blobs, name, missing_label, dtype, names):
    X, y, known = blobs
    strategy = SamplerStrategy(name, missing_label=missing_label, random_state=3)
    picks = strategy.query(X, missing(y, known, missing_label, '<U1' if dtype is str else dtype, names), parzen(classes=names or [0, 1, 2], missing_label=missing_label), batch_size=5)
    assert (picks == SamplerStrategy(name, random_state=3).query(X, missing(y, known), parzen(), batch_size=5)).all()

@needs_skactiveml
@every
def test_skactiveml_first_and_last_labels(blobs, name):
    X, y, known = blobs
    assert len(SamplerStrategy(name).query(X, np.full(90, np.nan), parzen(), batch_size=4)) == 4
    with pytest.warns(Warning, match='larger'): left = SamplerStrategy(name).query(X, missing(y, np.arange(87)), parzen(), batch_size=4)
    assert set(left) == {87, 88, 89}
    with pytest.warns(Warning, match='larger'), pytest.raises(ValueError, match='nothing left to query'): SamplerStrategy(name).query(X, y.astype(float), parzen())

@needs_skactiveml
def test_skactiveml_strategies_are_cloned_and_pickled():
    from sklearn.base import clone
    one = SamplerStrategy('entropy', embed=np.abs, missing_label=-1, random_state=4)
    for other in (clone(one), pickle.loads(pickle.dumps(one))): assert other.get_params() == one.get_params() and type(other) is SamplerStrategy

@needs_skactiveml
def test_skactiveml_embeds_images(blobs):
    X, y, known = blobs
    images, seen = X.reshape(90, 1, 2), []
    def spy(view, budget): seen.append(view); return SAMPLERS['class_anchors'](view, budget)
    class Flat(type(parzen())):
        def fit(self, X, y): return super().fit(X.reshape(len(X), -1), y)
        def predict_proba(self, X): return super().predict_proba(X.reshape(len(X), -1))
    for embed in (None, lambda X: torch.tensor(X, requires_grad=True)*2): SamplerStrategy(spy, embed).query(images, missing(y, known), Flat(classes=[0, 1, 2]))
    assert seen[0].z_N_D.shape == (81, 2) and torch.equal(seen[1].z_N_D, 2*seen[0].z_N_D) and torch.equal(seen[1].z_L_D, 2*seen[0].z_L_D)

def template():
    "A TestCase of scikit-activeml's template for every sampler."
    try: from skactiveml.tests.template_query_strategy import TemplateSingleAnnotatorPoolQueryStrategy as Template
    except ImportError: return lambda: pytest.skip('no template of scikit-activeml found: see $SKACTIVEML_TESTS above')
    class Ours(Template):
        def setUp(self):
            X, y = np.array([[1, 2], [5, 8], [8, 4], [5, 4], [3, 1], [9, 9]]), np.array([0, 1] + [np.nan]*4)
            super().setUp(qs_class=SamplerStrategy, init_default_params=dict(sampler=self.sampler), query_default_params_clf=dict(X=X, y=y, clf=parzen(classes=[0, 1])))
        def test_init_param_sampler(self): self._test_param('init', 'sampler', [('margins', ValueError), (None, ValueError), (1, ValueError), ('random', None), (samplers.entropy, None)])
        def test_init_param_embed(self):
            cases = [(None, None), (np.sqrt, None), (lambda X: X[:1], ValueError), (lambda X: None, ValueError), ('pca', TypeError)]
            self._test_param('init', 'embed', cases, replace_init_params=dict(sampler='weighted_anchors'))
        def test_query_param_clf(self):
            from skactiveml.classifier import SklearnClassifier
            super().test_query_param_clf(test_cases=[(LogisticRegression(), TypeError), (SklearnClassifier(LogisticRegression(), classes=[0, 1]), None),
                (None, None if self.sampler in FEATURES else ValueError)])
        def test_query(self):
            X, y, clf = (self.query_default_params_clf[k] for k in ('X', 'y', 'clf'))
            self.assertEqual(set(SamplerStrategy(self.sampler).query(X, y, clf, batch_size=4)), {2, 3, 4, 5})
    for name in OURS: globals()[f'TestTemplate_{name}'] = type(f'TestTemplate_{name}', (Ours, unittest.TestCase), dict(sampler=name))
    return lambda: None
test_template_found = template()

def a_learner(blobs, **kw):
    modal = pytest.importorskip('modAL.models', reason='modAL-python is not installed')
    X, y, known = blobs
    return modal.ActiveLearner(LogisticRegression(), X_training=X[known], y_training=y[known], **kw)

@every
@pytest.mark.parametrize('n', [1, 2, 5, 81])
def test_modal_contract(blobs, name, n):
    "As many distinct rows as asked for, two included, and their utilities; the same again."
    X, y, known = blobs
    learner = a_learner(blobs, query_strategy=partial(modal_query, sampler=name))
    picks, rows, u = learner.query(X[9:], n_instances=n, return_metrics=True)
    assert len(set(picks)) == n and set(picks) <= set(range(81)) and u.shape == (n,) and (rows == X[9:][picks]).all()
    assert (learner.query(X[9:], n_instances=n)[0] == picks).all()
    p = torch.tensor(learner.predict_proba(X[9:]))
    assert (SAMPLERS[name](PoolView(np.arange(81), 0, p, torch.tensor(X[9:]), z_L_D=torch.tensor(X[:9]), y_L=y[:9]), n) == picks).all()

@every
def test_modal_seed_breaks_ties(blobs, name):
    learner = a_learner(blobs)
    same = np.zeros((30, 2))
    assert len({int(modal_query(learner, same, 1, name, seed=s)[0][0]) for s in range(8)}) > 3

def test_modal_names_pipelines_and_committees(blobs):
    "Labels by name; distances where the learner's pipeline ends; a committee for what needs no labelled rows."
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    modal = pytest.importorskip('modAL.models', reason='modAL-python is not installed')
    X, y, known = blobs
    X, names, seen = X*[1, 100], np.array(['ant', 'bee', 'cow']), []
    def spy(view, budget): seen.append(view); return SAMPLERS['class_anchors'](view, budget)
    for on in (False, True):
        modal.ActiveLearner(make_pipeline(StandardScaler(), LogisticRegression()), modal_query, X[known], names[y[known]], on_transformed=on).query(X[9:], n_instances=3, sampler=spy)
    scaler = StandardScaler().fit(X[known])
    np.testing.assert_array_equal(seen[0].z_N_D, X[9:])
    np.testing.assert_allclose(seen[1].z_N_D, scaler.transform(X[9:])); np.testing.assert_allclose(seen[1].z_L_D, scaler.transform(X[:9]))
    assert (seen[1].y_L == y[known]).all()
    committee = modal.Committee([a_learner(blobs), a_learner(blobs)], query_strategy=modal_query)
    assert len(committee.query(X[9:], n_instances=3)[0]) == 3
    with pytest.raises(ValueError, match='does not reveal `z_L_D`'): committee.query(X[9:], n_instances=3, sampler='class_anchors')

def test_modal_texts_frames_and_sparse_rows():
    "Rows without numbers of their own are fine for what looks at probabilities, and for the rest with `embed`."
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    modal = pytest.importorskip('modAL.models', reason='modAL-python is not installed')
    texts = ['red apple', 'green apple', 'red car', 'fast car', 'green tree', 'red bus']
    learner = modal.ActiveLearner(make_pipeline(TfidfVectorizer(), LogisticRegression()), modal_query, texts[:3], [0, 0, 1])
    assert len(learner.query(texts[3:], n_instances=2)[0]) == 2
    with pytest.raises(ValueError, match='does not reveal `z_'): learner.query(texts[3:], sampler='class_anchors')
    dense = partial(modal_query, sampler='class_anchors', embed=lambda X: learner.estimator[0].transform(X).toarray())
    assert len(dense(learner, texts[3:], 2)[0]) == 2
    import pandas as pd
    frame = pd.DataFrame(dict(a=[0., 1, 2, 3, 4], b=[1., 0, 1, 0, 1]))
    assert len(modal.ActiveLearner(LogisticRegression(), modal_query, frame[:2], [0, 1]).query(frame[2:], n_instances=2, sampler='class_anchors')[0]) == 2
    sparse = learner.estimator[0].transform(texts)
    on_sparse = modal.ActiveLearner(LogisticRegression(), modal_query, sparse[:3], [0, 0, 1])
    assert len(on_sparse.query(sparse[3:], n_instances=2)[0]) == 2

@pytest.mark.skipif(tuple(map(int, sklearn.__version__.split('.')[:2])) >= (1, 8), reason='modAL 0.4.2.1 cannot teach with scikit-learn 1.8 and later')
@pytest.mark.filterwarnings('ignore::FutureWarning')
def test_modal_teach(blobs):
    X, y, known = blobs
    learner, pool = a_learner(blobs, query_strategy=partial(modal_query, sampler='class_anchors')), np.arange(9, 90)
    for _ in range(5):
        picks, rows = learner.query(X[pool], n_instances=6)
        learner.teach(rows, y[pool[picks]])
        pool = np.delete(pool, picks)
    assert learner.X_training.shape == (39, 2) and learner.score(X, y) > .8

class Fitted:
    "A learner of modAL without modAL: `modal_query` asks for no more."
    def __init__(self, X, y): self.estimator, self.X_training, self.y_training = LogisticRegression().fit(X, y), X, y

@pytest.mark.parametrize('kw, said', [(dict(n_instances=0), '`n_instances` is 0'), (dict(n_instances=1.5), '`n_instances` is 1.5'), (dict(sampler='margins'), 'Unknown sampler'),
    (dict(sampler=None), 'Unknown sampler'), (dict(sampler='discriminator'), 'does not reveal `d_N`'), (dict(learner=LogisticRegression()), 'must be fitted'),
    (dict(embed=lambda X: X[:5]), '`embed` must give finite numbers'), (dict(sampler=lambda view, budget: [90]), 'must pick 1 distinct rows of 81')])
def test_modal_bad_input(blobs, kw, said):
    X, y, known = blobs
    with pytest.raises(ValueError, match=said): modal_query(**dict(learner=Fitted(X[known], y[known]), X_pool=X[9:]) | kw)

def test_utilities_of_ties():
    "Uniform probabilities and equal rows: the replay follows the picks."
    view = PoolView(np.arange(12), 5, torch.full((12, 3), 1/3), torch.zeros(12, 2), z_L_D=torch.zeros(0, 2), y_L=np.empty(0, np.int64), p_L_C=torch.zeros(0, 3))
    for f in SAMPLERS.values():
        if f is samplers.discriminator: continue
        rows = f(view, 12); u = np.array([*utilities(view, f, rows)])
        np.testing.assert_allclose(u[range(12), rows], np.nanmax(u, 1))

def a_view(blobs, **kw):
    X, y, known = blobs
    return replace(view_of(LogisticRegression().fit(X[known], y[known]), X[9:], X[known], y[known]), ids=np.arange(9, 90)*10, **kw)

def test_any_function_as_a_sampler(blobs):
    "It sees labelled rows, their labels, the candidates; its indices become ids."
    view, seen = a_view(blobs), []
    def strategy(X, y, X_candidates, budget, step=1): seen.append((X.shape, y.shape, X_candidates.shape)); return np.arange(budget)*step
    assert as_sampler(strategy, step=3)(view, 4).tolist() == [90, 120, 150, 180] and seen == [((9, 2), (9,), (81, 2))]

@needs_skactiveml
@pytest.mark.parametrize('name', ['Badge', 'Clue', 'CoreSet', 'DiscriminativeAL', 'Falcun', 'GreedySamplingX', 'MaxHerding', 'ProbCover', 'RandomSampling', 'TypiClust', 'UncertaintySampling', 'SubSamplingWrapper'])
def test_skactiveml_strategies_as_samplers(blobs, name):
    "Pure: the same ids for the same view, chance from its seed, the view untouched."
    from skactiveml import pool
    its = dict(SubSamplingWrapper=dict(query_strategy=pool.UncertaintySampling()), Clue=dict(cluster_algo_dict=dict(random_state=0))).get(name, {}) # Clue's k-means has chance of its own
    sampler = as_sampler(getattr(pool, name)(**its), **dict(DiscriminativeAL=dict(discriminator=parzen(classes=[0, 1]))).get(name, {}))
    view = a_view(blobs); before = view.z_N_D.clone()
    got = sampler(view, 5)
    assert len(set(got)) == 5 and set(got) <= set(view.ids) and (sampler(view, 5) == got).all() and torch.equal(view.z_N_D, before)
    assert name not in ('RandomSampling', 'SubSamplingWrapper') or any(set(sampler(replace(view, seed=s), 5)) != set(got) for s in (1, 2**40))

@needs_skactiveml
@pytest.mark.parametrize('name', ['class_anchors', 'weighted_anchors', 'least_confidence', 'margin', 'entropy'])
def test_there_and_back(blobs, name):
    view = a_view(blobs)
    assert set(as_sampler(SamplerStrategy(name))(view, 12)) == set(SAMPLERS[name](view, 12))

@needs_skactiveml
def test_a_run_with_their_strategy(tmp_path, tiny, few, monkeypatch):
    "A whole run of the loop, stopped and gone on with."
    from skactiveml.pool import CoreSet
    from m2vaal_nb.loop import Job, run
    monkeypatch.setitem(SAMPLERS, 'core_set', as_sampler(CoreSet()))
    p = replace(tiny, learner='m2_vaal_no_adv', sampler='core_set')
    lines = list(run(Job(p, 'core_set', 0), tmp_path/'whole', 'cpu', few))
    list(run(Job(replace(p, rounds=1), 'core_set', 0), tmp_path/'parts', 'cpu', few))
    rest = list(run(Job(p, 'core_set', 0), tmp_path/'parts', 'cpu', few))
    assert [len(o['queried']) for o in lines] == [8, 4, 0] and lines[-1]['n_labelled'] == 32
    assert [o['queried'] for o in lines[-len(rest):]] == [o['queried'] for o in rest]

@pytest.mark.parametrize('bad', [None, 3, 'CoreSet', LogisticRegression, LogisticRegression()])
def test_as_sampler_bad_strategy(bad):
    with pytest.raises(ValueError, match='Give a strategy'): as_sampler(bad)

@pytest.mark.parametrize('picks', [[0, 0], [0, 81], [-1, 0], [0], [0., 1.], [[0, 1]], None, 'ab'])
def test_as_sampler_bad_picks(blobs, picks):
    with pytest.raises(ValueError, match='must pick 2 distinct rows of 81'): as_sampler(lambda *_: picks)(a_view(blobs), 2)

@pytest.mark.parametrize('bad', [[1, 1], [0, 5], [-1, 0], [0], [[0, 1]], [.5, 1.], None])
def test_bad_rows(bad):
    with pytest.raises(ValueError, match='must pick 2 distinct rows of 5'): check_rows(bad, 5, 2)

def test_without_the_packages():
    "Import is free; the class says what to install; the rest works."
    code = """if True:
        import sys; sys.modules.update({'skactiveml': None, 'modAL': None})
        import numpy as np
        from m2vaal_nb.interop.scikit_activeml import *
        from m2vaal_nb.data import PoolView
        try: SamplerStrategy('margin')
        except ImportError as e: print(e)
        view = PoolView(np.arange(9), z_N_D=np.eye(9), z_L_D=np.zeros((1, 9)), y_L=np.zeros(1, int))
        print(as_sampler(lambda X, y, C, budget: range(budget))(view, 2))
        try: as_sampler(object())
        except ValueError: print('refused')"""
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert out == ["This needs scikit-activeml: pip install 'm2vaal_nb[interop]'", '[0 1]', 'refused']
