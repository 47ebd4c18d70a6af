"What is checked at one door is checked at all: the same table of inputs for every function that takes inputs of a kind."
import importlib, inspect, pkgutil, subprocess, sys, warnings
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from functools import cache
from types import SimpleNamespace
from pathlib import Path
import matplotlib.figure, numpy as np, pandas as pd, pytest, scipy.sparse, torch
from PIL import Image
import m2vaal_nb
from m2vaal_nb.foundations.inputs import *
from m2vaal_nb.loop import Job, Training

nan, inf = float('nan'), float('inf')

# --- the table: forms that mean the same, and what is refused ---
def mapped(a, tmp):
    np.save(tmp/'a.npy', a)
    return np.load(tmp/'a.npy', mmap_mode='r')

def locked(a):
    a = a.copy()
    a.flags.writeable = False
    return a

FORMS = { # (array, an empty folder) -> the same numbers in another form
    'list': lambda a, _: a.tolist(),
    'tuple': lambda a, _: tuple(a.tolist()),
    'list of arrays': lambda a, _: [*a],
    'list of tensors': lambda a, _: [*torch.tensor(a)],
    'tensor': lambda a, _: torch.tensor(a),
    'part of a tensor': lambda a, _: torch.tensor(np.stack([a, a], 1))[:,1],
    'reversed': lambda a, _: a[::-1].copy()[::-1],
    'big-endian': lambda a, _: a.astype(a.dtype.newbyteorder('>')),
    'every second': lambda a, _: np.repeat(a, 2, 0)[::2],
    'column by column': lambda a, _: np.asfortranarray(a),
    'field of records': lambda a, _: np.rec.fromarrays([a, np.zeros(a.shape, 'i1')]).f0,
    'read-only': lambda a, _: locked(a),
    'memory-mapped': mapped,
    'big-endian, memory-mapped': lambda a, tmp: mapped(a.astype(a.dtype.newbyteorder('>')), tmp),
    'objects': lambda a, _: a.astype(object),
    'masked nowhere': lambda a, _: np.ma.array(a),
    'GPU': lambda a, _: torch.tensor(a).cuda() if torch.cuda.is_available() else pytest.skip('no GPU'),
    'pandas': lambda a, _: (pd.Series if a.ndim == 1 else pd.DataFrame)(a),
    'pandas, other index': lambda a, _: (pd.Series if a.ndim == 1 else pd.DataFrame)(a, index=range(9, 9+len(a))),
}
TABLES = {k: f for k,f in FORMS.items() if 'pandas' not in k} # for what has more than two axes
FLOATS = FORMS | {
    'single': lambda a, _: a.astype('f4'),
    'half': lambda a, _: a.astype('f2'),
    'long double': lambda a, _: a.astype(np.longdouble),
    'half tensor': lambda a, _: torch.tensor(a).half(),
    'bfloat16': lambda a, _: torch.tensor(a).bfloat16(),
    'with gradients': lambda a, _: torch.tensor(a, requires_grad=True),
    'parameter': lambda a, _: torch.nn.Parameter(torch.tensor(a)),
    'made by a net': lambda a, _: torch.tensor(a, requires_grad=True) + 0,
    'list with gradients': lambda a, _: [*torch.tensor(a, requires_grad=True)],
    'fractions': lambda a, _: np.vectorize(Fraction, otypes='O')(a),
    'pandas, nullable': lambda a, _: pd.Series(a, dtype='Float64') if a.ndim == 1 else pd.DataFrame(a).astype('Float64'),
}
INTEGERS = FORMS | {
    **{k: lambda a, _, k=k: a.astype(k) for k in ('i1', 'i4', 'u1', 'u2', 'u4', 'u8')},
    'small tensor': lambda a, _: torch.tensor(a, dtype=torch.uint8),
    'unsigned tensor': lambda a, _: torch.tensor(a).to(torch.uint16),
    'pandas, nullable': lambda a, _: pd.Series(a, dtype='Int64'),
    'one column': lambda a, _: pd.DataFrame(dict(y=a)),
    'range of pandas': lambda a, _: pd.Index(a),
}
NOTHING = { # what is refused wherever numbers in rows are wanted
    'None in it': lambda a: [None, *a.tolist()[1:]],
    'text': lambda a: a.astype(str),
    'text as objects': lambda a: a.astype(str).astype(object),
    'complex': lambda a: a + 1j,
    'complex tensor': lambda a: torch.tensor(a) + 1j,
    'dates': lambda a: a.astype('i8').astype('M8[s]'),
    'a dict': lambda a: dict(enumerate(a.tolist())),
    'a generator': lambda a: (v for v in a),
    'a number': lambda a: 3.,
    'one axis more': lambda a: np.stack([a, a]),
    'fewer rows': lambda a: a[:-1],
    'sparse tensor': lambda a: torch.tensor(a).to_sparse(),
    'masked': lambda a: np.ma.array(a, mask=np.arange(a.size).reshape(a.shape) == 0),
}
ROWS_OF = NOTHING | { # for two axes
    'ragged': lambda a: [*a[1:].tolist(), a[0].tolist()[1:]],
    'ragged tensors': lambda a: [*torch.tensor(a)[1:], torch.tensor(a)[0, 1:]],
    'sparse': lambda a: scipy.sparse.csr_matrix(a),
    'one row only': lambda a: a[0],
    'missing in pandas': lambda a: pd.DataFrame(a).shift(),
}
def spoilt(v): return lambda a: np.where(np.arange(a.size).reshape(a.shape) == 1, v, a.astype(float))
UNREAL = {'NaN': spoilt(nan), 'infinite': spoilt(inf), 'minus infinite': spoilt(-inf), 'NaN in half': lambda a: torch.tensor(spoilt(nan)(a)).half()}

p_6_3 = np.array([[.5, .25, .25], [.25, .5, .25], [.75, .125, .125], [1., 0, 0], [0, .5, .5], [.125, 0, .875]])
z_6_2 = np.array([[0., 1.5], [2, -.25], [4, 0], [.5, .5], [-3, 1], [8, 2]])
y_6, u_6 = np.array([0, 1, 0, 2, 1, 2]), np.array([.5, 2, -1, 0, 3, .25])
d_6 = np.array([.5, 1, 0, .25, .75, .125])
x_6 = np.random.default_rng(0).integers(0, 256, (6, 1, 8, 8)).astype('u1')
KINDS = { # kind: (plain, good forms, bad values)
    'probs': (p_6_3, FLOATS, ROWS_OF | UNREAL | {'twice': lambda a: 2*a, 'negative': lambda a: 2*a - 1/3, 'no class': lambda a: a[:,:0]}),
    'latents': (z_6_2, FLOATS, ROWS_OF | UNREAL | {'too large to square': spoilt(1e200), 'no dimension': lambda a: a[:,:0]}),
    'scores': (u_6, FLOATS, NOTHING | UNREAL),
    'shares': (d_6, FLOATS, NOTHING | UNREAL | {'above 1': lambda a: a + .01, 'below 0': lambda a: a - .01}),
    'labels': (y_6, INTEGERS, NOTHING | {'fractions': lambda a: a + .5, 'whole floats': lambda a: a.astype(float), 'booleans': lambda a: a > 0,
        'negative': lambda a: a - 1, 'missing in pandas': lambda a: pd.Series(a).where(a > 0), 'too large': lambda a: a + 2**40}),
    'images': (x_6, {k: f for k,f in FORMS.items() if 'pandas' not in k and 'objects' not in k and 'list' != k and 'tuple' != k}, {
        'floats in [0, 1]': lambda a: a/255, 'floats in [-1, 1]': lambda a: torch.tensor(a)/127.5 - 1, 'floats to 255': lambda a: a.astype('f4'),
        'integers': lambda a: a.astype(int), '16 bits': lambda a: a.astype('u2')*257, 'booleans': lambda a: a > 9, 'NaN': lambda a: a*nan,
        'channels last': lambda a: np.repeat(a, 3, 1).transpose(0, 2, 3, 1), 'no channels': lambda a: a[:,0], 'one image': lambda a: a[0],
        'none': lambda a: a[:0], 'text': lambda a: a.astype(str), 'five axes': lambda a: a[None], 'pixels in rows': lambda a: a.reshape(len(a), -1)}),
    'int': (2, {k: lambda a, _, k=k: k(a) for k in (np.int8, np.uint64, np.intp, torch.tensor, np.array)},
        {repr(v): lambda _, v=v: v for v in (-1, 2.5, 2., True, np.True_, '2', None, [2], nan, np.float64(2), torch.tensor(2.), 2j)}),
    'number': (2, {k: lambda a, _, k=k: k(a) for k in (int, float, np.int8, np.float16, np.float32, torch.tensor, np.array)},
        {repr(v): lambda _, v=v: v for v in (-1, True, np.True_, '2', None, [2.], nan, inf, -inf, np.float32('nan'), torch.tensor(nan), 2j, 10**400)}),
}
KINDS |= {'ids': (np.array([3, 0, 5, 1, 2, 4]), *KINDS['labels'][1:]), 'budget': KINDS['int'][:2] + (KINDS['int'][2] | {'0': lambda _: 0},)}

def sentence(e):
    "A complaint is one sentence in one line."
    said = str(e.value)
    assert said.endswith('.') and '\n' not in said and said[0] in f'`{said[0].upper()}' and len(said) < 300, said

# --- the converters themselves ---
CONVERT = {
    'probs': lambda v: as_probs(v, rows=6),
    'latents': lambda v: as_latents(v, rows=6, width=2),
    'scores': lambda v: as_scores(v, 6),
    'shares': lambda v: as_scores(v, 6, share=True),
    'labels': lambda v: as_labels(v, 6, n_classes=3),
    'images': lambda v: as_images(v),
    'int': lambda v: as_int(v, 'steps', low=0),
    'number': lambda v: as_number(v, 'lam', low=0),
    'ids': lambda v: as_ids(v, 6),
    'budget': lambda v: as_budget(v, 6),
}

@pytest.mark.parametrize('kind, form', [(k, f) for k in CONVERT for f in KINDS[k][1]])
@pytest.mark.filterwarnings('error')
def test_good_forms_are_the_same(kind, form, tmp_path):
    plain, good, _ = KINDS[kind]
    same = CONVERT[kind](good[form](plain, tmp_path))
    np.testing.assert_array_equal(wide(same) if kind == 'latents' else same, plain)
    assert type(same) is type(CONVERT[kind](plain)) and not getattr(same, 'requires_grad', False)

@pytest.mark.parametrize('kind, form', [(k, f) for k in CONVERT for f in KINDS[k][2] if (k, f) != ('ids', 'too large')])
def test_bad_ones_get_a_sentence(kind, form):
    plain, _, bad = KINDS[kind]
    with pytest.raises(ValueError) as e: CONVERT[kind](bad[form](plain))
    sentence(e)

@pytest.mark.parametrize('kind', ['probs', 'latents', 'scores', 'labels', 'images'])
@pytest.mark.parametrize('form', ['array', 'memory-mapped', 'read-only'])
def test_no_copy_where_none_is_needed(kind, form, tmp_path):
    a = KINDS[kind][0].astype({'labels': 'i8', 'images': 'u1'}.get(kind, 'f4'))
    given = a if form == 'array' else FORMS[form](a, tmp_path)
    kept = CONVERT[kind](given)
    assert np.shares_memory(np.asarray(kept), given)
    as_torch = as_tensor(given)
    assert np.shares_memory(np.asarray(CONVERT[kind](as_torch)), given)

def test_memory_mapped_half_stays_on_the_disk(tmp_path):
    "Embeddings are often kept so; distances are taken in double precision anyway."
    z = mapped(z_6_2.astype('f2'), tmp_path)
    assert np.shares_memory(np.asarray(as_latents(z)), z)

@pytest.mark.parametrize('row', [0, 6, 7, 8, 19])
def test_every_block_is_checked(row, monkeypatch):
    monkeypatch.setattr('m2vaal_nb.foundations.inputs.ROWS', 7)
    p, z = np.full((20, 2), .5), np.zeros((20, 2))
    as_probs(p); as_latents(z)
    p[row] = z[row] = nan
    with pytest.raises(ValueError, match=f'row {row} is'): as_probs(p)
    with pytest.raises(ValueError, match='must be finite'): as_latents(z)

@pytest.mark.parametrize('dtype', [torch.double, torch.float, torch.half, torch.bfloat16])
@pytest.mark.parametrize('classes', [2, 10, 1000])
def test_a_softmax_of_any_type_is_taken(dtype, classes):
    g = torch.Generator().manual_seed(0)
    for scale in (.1, 1, 10):
        p = as_probs((scale*torch.randn(500, classes, generator=g)).to(dtype).softmax(-1))
        assert p.dtype == (torch.double if dtype == torch.double else torch.float)
    with pytest.raises(ValueError, match='sum to 1'): as_probs((torch.full((5, classes), 1.2/classes)).to(dtype))

@pytest.mark.parametrize('decimals', [2, 3, 4])
def test_a_rounded_table_is_taken(decimals):
    as_probs(np.random.default_rng(0).dirichlet(np.ones(3), 500).round(decimals))

def test_a_budget_that_is_too_large():
    with pytest.warns(UserWarning, match='`budget` is 9, more than the 6 left: all are taken.'): assert as_budget(9, 6) == 6
    with warnings.catch_warnings(action='error'): assert [as_budget(b, 6) for b in (1, 6)] == [1, 6]
    with pytest.raises(ValueError, match='nothing left'): as_budget(1, 0)

@pytest.mark.parametrize('n', range(4))
@pytest.mark.parametrize('least', range(4))
def test_how_many_there_must_be_at_least(n, least):
    for convert, a, what in (as_images, x_6, 'Images'), (as_latents, z_6_2, 'Latents'):
        if n >= least: assert len(convert(a[:n], least=least)) == n
        else:
            with pytest.raises(ValueError, match=f'{what} must have at least {least} rows?, not {n}') as e: convert(a[:n], least=least)
            sentence(e)

@pytest.mark.parametrize('dtype', ['?', 'u1', 'i1', 'u2', 'i8', 'f2', 'f4', 'f8'])
def test_scores_can_be_turned_round(dtype):
    "A sampler that ranks by what is smallest takes the negative: of bytes it would wrap around, of truth values there is none."
    from m2vaal_nb.data import PoolView
    from m2vaal_nb.samplers import discriminator
    d = np.array([1, 0, 1, 0], dtype)
    view = PoolView(np.arange(4), 0, d_N=d, r_N=d)
    assert {*discriminator(view, 2)} == {1, 3} and (-view.r_N).tolist() == (-d.astype(float)).tolist()
    assert all(v.is_floating_point() for v in (view.d_N, view.r_N, as_scores(d)))
    with pytest.raises(ValueError, match='`d_N` must lie between 0 and 1: 0 to 2 were given') as e: PoolView(np.arange(4), d_N=2*d.astype('f4'))
    sentence(e)

def test_names_and_flags():
    assert as_name(np.str_('cpu'), ('auto', 'cpu'), 'device') == 'cpu' and as_flag(np.False_, 'balanced') is False
    for bad in ('CPU', '', None, ['cpu'], 0, np.array(['cpu'])):
        with pytest.raises(ValueError, match='Unknown device .*: choose one of auto, cpu.') as e: as_name(bad, dict(auto=1, cpu=2), 'device')
        sentence(e)
    for bad in (0, 1, 'no', None, [True]):
        with pytest.raises(ValueError, match='must be True or False') as e: as_flag(bad, 'balanced')
        sentence(e)

# --- all doors: each public function with a parameter of such a name is tried below, or stands in INSIDE ---
ARRAYS = {
    'probs': ('p_N_C', 'p_U_C'),
    'latents': ('z_N_D', 'z_U_D', 'z_L_D'),
    'scores': ('score_N', 'score_U', 'score_L', 'r_N', 'd_L', 'd_U'),
    'shares': ('d_N',),
    'labels': ('y', 'y_N', 'y_U', 'y_L', 'y_test', 'guess_N'),
    'ids': ('ids', 'picks', 'labelled'),
    'images': ('x', 'x_N', 'x_test'),
    'drawn': ('drawn_N',)}
SETTINGS = {
    'budget': ('budget', 'n_instances'),
    'int': ('seed', 'round', 'n', 'n_val', 'n_classes', 'folds', 'block', 'n_workers', 'tries', 'at_most', 'n_images', 'n_points', 'n_picks',
            'first', 'size', 'ncols', 'steps', 'batch', 'latent', 'rounds', 'max_labels', 'n_init', 'warmup_steps', 'asked'),
    'number': ('lr', 'weight_decay', 'beta', 'lam', 'alpha', 'eta')}
KIND_OF = {name: kind for table in (ARRAYS, SETTINGS) for kind,names in table.items() for name in names}
TYPES = {'int': (int, int | None, str | int), 'budget': (int,), 'number': (float,)} # elsewhere a `size` is a name, a `batch` holds images
exact = {k: f for k,f in FLOATS.items() if k not in ('single', 'half', 'half tensor', 'bfloat16') and 'pandas' not in k}
KINDS['drawn'] = x_6/255, exact, {k: f for k,f in KINDS['images'][2].items() if k not in ('floats in [0, 1]', 'floats to 255')} | {'above 1': lambda a: a + .01}

def takes(f):
    "The parameters of a function that the table is for, and their kinds."
    kinds = {p.name: (KIND_OF.get(p.name), p.annotation) for p in inspect.signature(f).parameters.values()}
    return {name: kind for name,(kind,annotation) in kinds.items() if kind and annotation in TYPES.get(kind, (annotation,))}

def public():
    "Name -> function or class, of all that the package exports, and of the methods of its classes."
    for m in pkgutil.walk_packages(m2vaal_nb.__path__, 'm2vaal_nb.'):
        module = importlib.import_module(m.name)
        for name in getattr(module, '__all__', ()):
            o = getattr(module, name)
            if getattr(o, '__module__', None) != m.name or not callable(o): continue
            yield f'{m.name}.{name}'[10:], o
            methods = vars(o).items() if inspect.isclass(o) else ()
            yield from ((f'{m.name}.{name}.{k}'[10:], f) for k,f in methods if inspect.isfunction(f) and k[0] != '_')

FOUND = {name: f for name,f in public() if takes(f)}

INSIDE = { # why the table is not for them: (names, or beginnings of names that end in a dot)
    'converts and checks itself': ('foundations.inputs.', 'data.checked_view', 'samplers.checked_latents'),
    'parts of nets and losses, fed by the training step': ('models.', 'losses.', 'loop.pixels',
        'loop.Draws', 'loop.Draws.batches', 'loop.train'),
    'parts of a sampler, behind its door': ('data.some', 'data.need_for_sale', 'data.top_rows', 'samplers.blocks', 'samplers.best_rows', 'samplers.best_place', 'samplers.predicted',
        'samplers.Cluster', 'samplers.shares', 'samplers.clusters', 'interop.views.check_rows', 'interop.scikit_activeml.ask_skactiveml'),
    'reads a log that this package wrote': ('foundations.log.', 'paper.why.gradient_cosines', 'paper.why.latent_structure',
        'paper.fig3.probe_reconstructions', 'paper.pictures.plot_class_bars', 'paper.long_enough.', 'paper.precision.in_each_precision', 'beyond.trust.what_it_said'),
    'statistics and times': ('paper.statistics.', 'scale.benchmark.', 'scale.limit.', 'scale.training_step.', 'own_images.accuracy.advice'),
    'needs a cluster': ('scale.cluster.run_on_ray', 'scale.cluster.on_ray'),
    'parts of a command, behind its door': ('cli.other_images', 'own_images.folder.Known', 'own_images.folder.Query',
        'own_images.folder.seen_pool', 'own_images.images.bad_images', 'own_images.images.check_bad', 'own_images.images.check_shape',
        'own_images.images.fill', 'own_images.images.Seen', 'own_images.images.flat_rows', 'own_images.query.served',
        'own_images.query.at_random', 'own_images.query.no_guess', 'own_images.query.first_images', 'own_images.query.picked', 'own_images.query.predictions', 'own_images.query.label_folds', 'own_images.query.splits_of', 'own_images.query.temperature',
        'own_images.labelled_folder.', 'own_images.relearn.', 'own_images.labeller.chosen_now', 'own_images.labeller.Labeller'),
    'refused by tests of its own, in test_embeddings': ('own_images.embed.', 'own_images.embeddings.made_up_files'),
    'parts of an audit and of a report, behind their doors': ('own_images.audit.Audit', 'own_images.accuracy.wilson', 'own_images.audit.audit_run', 'own_images.audit.audit_part', 'own_images.audit.audit_ids', 'own_images.audit.holding_up',
        'own_images.audit.one_fold', 'own_images.review.made_unsure', 'own_images.report.'),
    'parts of a run, of a start and of an engine, behind their doors': ('data.even_shares', 'foundations.chance.epoch_rows',
        'loop.Buying', 'loop.Training', 'loop.pick', 'loop.dry_run', 'scale.workers.Patience', 'scale.workers.Crew',
        'scale.workers.on_workers', 'scale.lockstep.in_lockstep', 'scale.lockstep.sharing', 'interop.scikit_activeml.spread', 'interop.scikit_activeml.FeaturesOnly',
        'interop.scikit_activeml.features_of'),
    'parts of a figure or of a rule, fed by logs': ('paper.pictures.map_points', 'paper.pictures.count_wrong', 'paper.pictures.figures_of',
        'paper.rules.'),
    'parts of learning features, and of strategies on them, behind their doors': ('beyond.contrast.moved', 'beyond.contrast.erased',
        'beyond.contrast.augmented', 'beyond.contrast.turned', 'beyond.colours.', 'beyond.contrast.recoloured', 'beyond.contrast.contrastive_loss', 'beyond.contrast.vae_loss', 'beyond.representation.rate',
        'beyond.representation.dealt', 'beyond.representation.one_pass', 'beyond.representation.taken_up', 'beyond.representation.need_same_images', 'beyond.feature_learners.Head', 'beyond.feature_learners.two_halves', 'beyond.feature_learners.as_many',
        'beyond.feature_learners.Model.predict', 'beyond.propagation.Propagated', 'beyond.propagation.as_matrix', 'beyond.m1m2.M2', 'beyond.m1m2.M2.',
        'beyond.m1m2.class_cost', 'beyond.m1m2.train_m2', 'beyond.m1m2.Guess', 'beyond.doubt_herding.Shuffled', 'beyond.doubt_herding.DensityRatio',
        'beyond.cover.pieces', 'beyond.cover.look_at_lengths', 'beyond.cover.Rows', 'beyond.cover.nearest', 'beyond.cover.checked', 'beyond.cover.greedy', 'beyond.cover.drawn',
        'beyond.cover.cover_of', 'beyond.cover.to_cover', 'beyond.doubt_herding.doubt_weights', 'beyond.guests.', 'beyond.trust.query_number', 'beyond.trust.doubt_by_query', 'beyond.trust.max_then_uherding', 'beyond.feature_learners.at_temperature', 'beyond.strategies.neighbour_distances', 'beyond.strategies.Centres', 'beyond.strategies.sweep', 'beyond.strategies.Gradients', 'beyond.strategies.k_means',
        'beyond.strategies.typical_first', 'beyond.strategies.typical_of_clusters', 'beyond.strategies.pure_delta',
        'beyond.strategies_speed.made_up_features', 'beyond.strategies_speed.rivals', 'beyond.strategies_speed.measured',
        'beyond.strategies_speed.side_by_side', 'beyond.strategies_speed.compare_speed'),
    'images or features, each by the door of its own': ('data.as_inputs',),
    'a range of its own, in test_beyond': ('beyond.doubt_herding.doubt',),
    'labels of any type, and a classifier of somebody else': ('interop.views.places', 'interop.scikit_activeml.SamplerStrategy.query', 'interop.scikit_activeml.Revealed.fit'),
}
def inside(name): return any(name == o or o.endswith('.') and name.startswith(o) for names in INSIDE.values() for o in names)

@cache
def toy():
    "A small data set, a protocol, nets, a log."
    from m2vaal_nb.data import Dataset, Pool, PoolView, lookup
    from m2vaal_nb.losses import LEARNERS
    from m2vaal_nb.loop import Protocol, fresh_nets, start_pool
    y = np.arange(40) % 3
    x = (np.random.default_rng(0).integers(0, 200, (40, 1, 8, 8)) + 20*y[:,None,None,None]).astype('u1')
    data = Dataset(x, y, x[:9], y[:9], ('a', 'b', 'c'))
    p = Protocol(n_init=12, budget=2, max_labels=14, steps=1, batch=4, n_val=6, latent=2)
    pool, _ = start_pool(data, p, 0)
    view = PoolView(np.arange(6), 0, p_6_3, z_6_2, d_6, z_L_D=z_6_2, y_L=y_6, p_L_C=p_6_3)
    learner = LEARNERS['m2']
    return SimpleNamespace(x=x, y=y, data=data, p=p, pool=pool, view=view, learner=learner, nets=fresh_nets(learner, Training(pool, p, 0, 0)))

def logged(folder):
    "The folder, with a log in it."
    from m2vaal_nb.loop import run
    list(run(Job(toy().p, 'random', 0), folder, 'cpu', toy().data))
    return folder/'random-0.jsonl'

class Known:
    "A learner of modAL, fitted."
    estimator = SimpleNamespace(classes_=[0, 1, 2], predict_proba=lambda X: p_6_3)
    X_training, y_training = z_6_2, y_6

def pictures(folder):
    "A folder of six images."
    for i,x in enumerate(x_6): Image.fromarray(x[0]).save(folder/f'{i}.png')
    return folder

def features_of_6():
    "Nets that make features of the six images."
    from m2vaal_nb.beyond.contrast import Recipe, fresh
    return fresh(Recipe(), x_6.shape[1:]).eval()

any_rows = {'fewer rows'}
z_18_2, y_18 = np.repeat(z_6_2, 3, 0) + np.arange(18)[:,None]/8, np.repeat(y_6, 3)
DOORS = { # name: (what it gets besides, plain values other than the table's, bad values that are good there)
    'data.Dataset': (dict(classes='abc'), {}, {'x': {'pixels in rows'}, 'x_test': {'pixels in rows'}}),
    'data.split_ids': ({}, dict(n=9)),
    'data.held_out': (lambda: dict(data=replace(toy().data, x_test=toy().data.x[:0], y_test=[])),),
    'data.judged_by': (lambda: dict(data=replace(toy().data, x_test=toy().data.x[:0], y_test=[])),),
    'data.lookup': ({}, {}, any_rows | {'too large'}),
    'data.Pool': (dict(oracle=None, classes='abc'), dict(labelled=np.arange(6)), {'x': {'pixels in rows'}}),
    'data.Pool.reveal': (lambda: dict(self=replace(toy().pool, ids=np.arange(6), labelled=[], y=[])), {}, any_rows),
    'data.initial_ids': ({}, dict(n=3, ids=np.arange(6)), {'y_N': {'too large'}, 'ids': {'fewer rows'}}),
    'data.PoolView': ({}, {}, {'ids': {'too large'}, 'y_L': {'too large'}}),
    'data.PoolView.top': (lambda: dict(self=toy().view),),
    'foundations.chance.rng': (dict(stream='nets'),),
    'foundations.chance.tie_ranks': ({}, dict(n=9)),
    'foundations.metrics.class_accuracy': (dict(guess_N=y_6), dict(n_classes=3)),
    'foundations.metrics.discriminator_quality': ({}, {}, any_rows),
    'foundations.display.show_images': ({}, {}, {'fewer rows', 'floats in [0, 1]'}),
    'samplers.least_confidence_scores': ({}, {}, any_rows),
    'samplers.margin_scores': ({}, {}, any_rows),
    'samplers.entropy_scores': ({}, {}, any_rows),
    **{f'samplers.{name}': (lambda: dict(view=toy().view),) for name in ('random', 'least_confidence', 'margin', 'entropy', 'discriminator', 'class_anchors', 'weighted_anchors')},
    'samplers.class_anchors_rows': ({}, dict(n_classes=3)),
    'samplers.weighted_anchors_rows': (),
    'loop.Protocol': ({}, {}),
    'loop.Job': (lambda: dict(protocol=toy().p, method='random'),),
    'loop.start_pool': (lambda: dict(data=toy().data, p=toy().p),),
    'loop.predict': (lambda: dict(nets=toy().nets, learner=toy().learner), {}, {'none'}),
    'loop.view_pool': (lambda: dict(nets=toy().nets, learner=toy().learner, pool=toy().pool, p=toy().p),),
    'loop.accuracy': (lambda: dict(nets=toy().nets, learner=toy().learner), {}, {'too large'}),
    'loop.guess_classes': (lambda: dict(nets=toy().nets, learner=toy().learner),),
    'scale.lockstep.run_in_lockstep': (lambda tmp: dict(jobs=[], folder=tmp),),
    'scale.workers.run_on_workers': (lambda tmp: dict(jobs=[], folder=tmp),),
    'own_images.folder.query_folder': (lambda tmp: dict(images=pictures(tmp), out=tmp/'next.csv', say=str), dict(size=8)),
    'own_images.images.square': ({}, dict(size=8)),
    'own_images.query.known_pool': (dict(classes='abc'), {}, {'x_N': {'pixels in rows'}, 'y_N': {'negative'}}),
    'own_images.query.trained': (lambda: dict(pool=toy().pool, p=toy().p),),
    'own_images.query.view_blocks': (lambda: dict(nets=toy().nets, pool=toy().pool, p=replace(toy().p, learner='m2')),),
    'own_images.query.predict_rest': (lambda: dict(pool=toy().pool, p=toy().p),),
    'own_images.query.query_protocol': (dict(left=6, method='margin'),),
    'own_images.query.next_images': (lambda: dict(pool=toy().pool, steps=1),),
    'own_images.accuracy.cross_validate': (lambda: dict(pool=toy().pool, steps=1),),
    'own_images.audit.audit_order': (dict(names='abc'),),
    'own_images.audit.audited_images': (lambda: dict(pool=toy().pool, order=toy().pool.ids, steps=1),),
    'own_images.audit.cross_fit': (lambda: dict(pool=toy().pool, measure=toy().pool.labelled, p=toy().p),),
    'own_images.review.label_probabilities': (lambda: dict(pool=toy().pool, p=toy().p),),
    'own_images.review.label_review': (lambda: dict(pool=toy().pool, p=toy().p),),
    'interop.modal.modal_query': (lambda: dict(learner=Known, X_pool=z_6_2),),
    'interop.views.view_of': (lambda: dict(model=Known.estimator, X_N=z_6_2, X_L=z_6_2, y_L=y_6),), # labels may be of any type
    'interop.tensorboard.picked_images': (lambda: dict(line=dict(queried=[3, 1, 2], method='a', seed=0), data=toy().data),),
    'paper.revisit.rewind': (lambda tmp: dict(path=logged(tmp), data=toy().data), dict(round=1)),
    'paper.revisit.revisit': (lambda tmp: dict(path=logged(tmp), data=toy().data), dict(round=1)),
    'paper.pictures.picks_of': (lambda tmp: dict(log=logged(tmp)), dict(round=0)),
    'paper.pictures.draw_run': (lambda tmp: dict(log=logged(tmp), data=toy().data, say=str), dict(round=0)),
    'paper.fig3.reconstruct': (lambda: dict(nets=toy().nets, learner=toy().learner), {}, any_rows),
    'paper.fig3.show_reconstructions': (dict(classes='abc'),),
    'paper.pictures.show_picks': (dict(classes='abc'),),
    'paper.pictures.latent_map': (lambda: dict(view=toy().view), dict(picks=np.array([3, 0]), x_N=toy().pool.x.numpy()), any_rows),
    'paper.pictures.plot_scores': (dict(picked=[1], name='score'), {}, any_rows),
    'paper.why.k_centre': ({}, dict(n=3), any_rows),
    'paper.why.class_structure': ({}, dict(z_N_D=z_18_2, y_N=y_18), {'too large'}),
    'beyond.contrast.Recipe': ({},),
    'beyond.representation.learn': (lambda: dict(recipe=importlib.import_module('m2vaal_nb.beyond.contrast').Recipe(passes=1, batch=2)),),
    'beyond.representation.embed': (lambda: dict(nets=features_of_6()), {}, {'fewer rows', 'none'}),
    'beyond.m1m2.M2Recipe': ({},),
    'beyond.one_factor.with_wrong_labels': (lambda: dict(data=importlib.import_module('m2vaal_nb.data').Dataset(z_6_2, [0, 1]*3, z_6_2, [0, 1]*3, ('a', 'b'))),),
    'beyond.propagation.propagate': (dict(h_N_D=z_6_2), dict(labelled=np.arange(6), n_classes=3)),
    'beyond.feature_learners.fit_head': (dict(h_L_D=z_6_2), dict(n_classes=3)),
    'beyond.feature_learners.tell_labelled': ({}, {}, any_rows),
    **{f'beyond.{name}': ({}, {}, {'z_L_D': any_rows}) for name in (
        'doubt_herding.doubt_herding_rows', 'strategies.badge_rows', 'strategies.cluster_margin_rows')},
    **{f'beyond.strategies.{name}': ({}, {}, {k: any_rows for k in ('z_U_D', 'p_U_C', 'z_L_D')}) for name in (
        'coreset_rows', 'typiclust_rows', 'power_margin_rows', 'noisy_margins')},
    'beyond.strategies.probcover_rows': (dict(delta=.5), {}, {'z_L_D': any_rows, 'z_U_D': any_rows}),
    'beyond.cover.herding_rows': (dict(weight_U=None), {}, {'z_L_D': any_rows, 'z_U_D': any_rows}),
    'beyond.cover.cover_rows': (lambda: dict(weight_U=None, width=1., kernel=importlib.import_module('m2vaal_nb.beyond.cover').gauss), {}, {'z_L_D': any_rows, 'z_U_D': any_rows}),
    'beyond.cover.covering': (lambda: dict(view=toy().view, covers=importlib.import_module('m2vaal_nb.beyond.cover').alike),),
    'beyond.cover.cover_gains': (lambda: dict(weight_U=None, width=1., kernel=importlib.import_module('m2vaal_nb.beyond.cover').gauss), {}, {'z_L_D': any_rows, 'z_U_D': any_rows, 'picks': {'fewer rows'}}),
    **{f'beyond.{name}': (lambda: dict(view=toy().view),) for name in ('doubt_herding.doubt_herding', 'doubt_herding.doubt_shuffled',
        'doubt_herding.doubt_density', 'doubt_herding.discriminator_zy', 'doubt_herding.doubt_zy', 'doubt_herding.doubt_area', 'doubt_herding.doubt_constant', 'doubt_herding.doubt_schedule',
        *(f'trust.{name}' for name in ('doubt_fixed', 'max_until_seen', 'uherding_calibrated', 'uherding_adapted')), 'strategies.coreset', 'strategies.badge', 'strategies.typiclust', 'strategies.probcover',
        'strategies.max_herding', 'strategies.uherding', 'strategies.power_margin', 'strategies.cluster_margin')},
    'beyond.trust.ece': ({},),
    'beyond.trust.calibrating': (dict(n_classes=3), {}, {'z_L_D': any_rows, 'y_L': any_rows}),
    'beyond.trust.nearest_pair': ({}, {}, {'z_L_D': any_rows}),
    'interop.tensorboard.Watch': (lambda tmp: dict(folder=tmp),),
}

def test_no_door_is_missing():
    assert not [o for o in FOUND if o not in DOORS and not inside(o)]
    assert not [o for o in DOORS if o not in FOUND or inside(o)]
    assert not [o for names in INSIDE.values() for o in names if not any(name == o or name.startswith(o) for name in FOUND)]

def besides(name, folder):
    "What a door gets besides what is tried."
    more = (DOORS[name] or ({},))[0]
    if not callable(more): return dict(more)
    return more(folder) if inspect.signature(more).parameters else more()

def called(name, folder, **changed):
    "What a door gives for plain values, but for those that are changed; of a generator the first."
    folder.mkdir()
    fixed, kinds = besides(name, folder), takes(FOUND[name])
    others = (DOORS[name][1:2] or ({},))[0]
    found = FOUND[name](**{k: others.get(k, KINDS[kind][0]) for k,kind in kinds.items()} | fixed | changed)
    return next(found, None) if inspect.isgenerator(found) else found

def tried():
    "Every door with every parameter that the table is for."
    for name in DOORS:
        if name not in FOUND: continue
        of_door = besides(name, Path('nowhere')) if not callable((DOORS[name] or ({},))[0]) else {}
        for k,kind in takes(FOUND[name]).items():
            if k not in of_door and (name, k) not in {('interop.views.view_of', 'y_L')}: yield name, k, kind

def alike(a, b):
    "Do two results say the same?"
    if a is b: return True
    if isinstance(a, torch.nn.Module): return alike(a.state_dict(), b.state_dict())
    if isinstance(a, np.random.Generator): return a.bit_generator.state == b.bit_generator.state
    if isinstance(a, torch.Tensor): a, b = a.double(), b.double()
    if isinstance(a, (matplotlib.figure.Figure, pd.DataFrame)) or inspect.isfunction(a): return type(a) is type(b) and shown_as(a) == shown_as(b)
    if is_dataclass(a): return all(alike(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.name not in ('oracle', 'y_oracle'))
    if isinstance(a, dict): return a.keys() == b.keys() and all(alike(a[k], b[k]) for k in a if k != 'timing')
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, (torch.Tensor, np.ndarray, float)): return np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)
    return a == b or type(a) is type(b) and not isinstance(a, (int, str))

def shown_as(a):
    if isinstance(a, pd.DataFrame): return a.round(4).to_csv()
    if inspect.isfunction(a): return a(np.array([2, 0])).tolist()
    return [[np.asarray(image.get_array()).tolist() for image in ax.get_images()] + [ax.get_title()] for ax in a.axes]

SLOW = ('paper.', 'own_images.folder.', 'own_images.accuracy.', 'own_images.audit.') # they draw or train, so a few forms stand for all
FEW = {'tensor', 'reversed', 'pandas', 'bfloat16', 'with gradients', np.int8, torch.tensor}

@pytest.mark.parametrize('name, param, kind', [*tried()])
@pytest.mark.filterwarnings('ignore')
def test_every_form_passes_every_door(name, param, kind, tmp_path):
    value = (DOORS[name][1:2] or ({},))[0].get(param, KINDS[kind][0])
    plain = called(name, tmp_path/'plain')
    for i,(form,make) in enumerate(KINDS[kind][1].items()):
        if form == 'GPU' and not torch.cuda.is_available() or name.startswith(SLOW) and form not in FEW: continue
        (tmp_path/f'form-{i}').mkdir()
        given = make(value, tmp_path/f'form-{i}')
        assert alike(plain, called(name, tmp_path/str(i), **{param: given})), form

@pytest.mark.parametrize('name, param, kind', [*tried()])
@pytest.mark.filterwarnings('ignore')
def test_no_door_lets_anything_bad_in(name, param, kind, tmp_path):
    value = (DOORS[name][1:2] or ({},))[0].get(param, KINDS[kind][0])
    fine = (DOORS[name][2:3] or ({},))[0]
    if isinstance(fine, dict): fine = fine.get(param, ())
    if inspect.signature(FOUND[name]).parameters[param].default is None: fine = {*fine, 'None'}
    for i,(form,make) in enumerate(KINDS[kind][2].items()):
        if form in fine: continue
        try: called(name, tmp_path/str(i), **{param: make(value)})
        except ValueError as e: sentence(SimpleNamespace(value=e))
        else: assert False, f'{form} was taken'

# --- a budget larger than what is left ---
def too_much(tmp):
    "Name -> a call that asks for 9 of 6, and how to see what came."
    from m2vaal_nb import samplers
    from m2vaal_nb.interop.modal import modal_query
    from m2vaal_nb.interop.scikit_activeml import as_sampler
    from m2vaal_nb.own_images.folder import query_folder
    from m2vaal_nb.own_images.query import known_pool, next_images
    view, pool = toy().view, known_pool(np.repeat(x_6, 2, 0), [0, 1, 2, 0, 1, 2] + 6*[-1], 'abc')
    first = as_sampler(lambda X, y, X_candidates, budget: range(budget))
    return {**{name: lambda f=f: f(view, 9) for name,f in samplers.SAMPLERS.items()},
        'top': lambda: view.top(u_6, 9),
        'class_anchors_rows': lambda: samplers.class_anchors_rows(z_6_2, y_6, z_6_2, y_6, 9, 3),
        'weighted_anchors_rows': lambda: samplers.weighted_anchors_rows(z_6_2, p_6_3, z_6_2, y_6, 9),
        'next_images': lambda: next_images(pool, 9, steps=1).id,
        'next_images, nothing labelled': lambda: next_images(known_pool(x_6), 9).id,
        'modal_query': lambda: modal_query(Known, z_6_2, 9)[0],
        'as_sampler': lambda: first(view, 9)}

def test_a_budget_that_is_too_large_is_served_with_what_is_left(tmp_path):
    for name,call in too_much(tmp_path).items():
        with pytest.warns(UserWarning, match='is 9, more than the 6 left: all are taken.') as said: got = call()
        assert len(set(got)) == len(got) == 6 and len([w for w in said if 'left' in str(w.message)]) == 1, name

# --- memory, and what an import costs ---
def test_a_view_and_a_pool_stay_on_the_disk(tmp_path):
    from m2vaal_nb.data import PoolView
    from m2vaal_nb.own_images.query import known_pool
    folders = [tmp_path/name for name in 'pzx']
    for f in folders: f.mkdir()
    p, z, x = (mapped(a, f) for a,f in zip((p_6_3.astype('f4'), z_6_2.astype('f4'), x_6), folders))
    view, pool = replace(PoolView(np.arange(6), 0, p, z), seed=1), known_pool(x, y_6, 'abc')
    for kept,given in ((view.p_N_C, p), (view.z_N_D, z), (pool.x, x)): assert np.shares_memory(kept.numpy(), given)

def test_importing_samplers_is_cheap():
    code = "import sys, m2vaal_nb.samplers; print(*{'torchvision', 'pandas', 'matplotlib', 'sklearn', 'scipy', 'PIL'} & set(sys.modules))"
    assert not subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()

# --- as they were reported ---
def test_reported():
    from m2vaal_nb.data import PoolView
    from m2vaal_nb.loop import Protocol
    from m2vaal_nb.samplers import class_anchors, least_confidence, margin_scores
    p = torch.full((2, 50), .02)
    p[1] = (1 - .021)/49
    p[1, 0] = .021
    assert [int(least_confidence(PoolView(np.arange(2), s, p.bfloat16()), 1)[0]) for s in range(8)] == 8*[0]
    with pytest.raises(ValueError, match='must be finite'):
        class_anchors(PoolView(np.arange(6), 0, p_6_3*nan, z_6_2, z_L_D=z_6_2, y_L=y_6), 2)
    assert margin_scores(pd.DataFrame(np.full((4, 2), .5))).tolist() == 4*[0]
    assert type(Protocol(steps=np.int64(9)).steps) is int
    assert least_confidence(PoolView([3, 5], 0, [[.5, .5], [.9, .1]]), 1) == [3]

def test_a_run_with_settings_of_numpy(tmp_path):
    "The log is the one of Python's own numbers."
    from m2vaal_nb.loop import run
    from m2vaal_nb.experiments import plan
    p, of_numpy = toy().p, replace(toy().p, steps=np.int32(1), lr=np.float64(1e-3), init_classes=np.array([0, 2]), init_balanced=np.True_)
    assert of_numpy == replace(p, init_classes=(0, 2), init_balanced=True) and hash(of_numpy)
    lines = [list(run(Job(q, 'random', seed), tmp_path/str(i), 'cpu', toy().data)) for i,(q,seed) in enumerate([(of_numpy, np.int64(3)), (replace(p, init_classes=[0, 2], init_balanced=True), 3)])]
    assert [alike(a, b) for a,b in zip(*lines)] == [True, True] and lines[0][0]['seed'] == 3
    assert plan('demo', ['random'], np.arange(2)) == plan('demo', ['random'], [0, 1])

def test_the_table_is_large():
    assert sum(len(good) + len(bad) for _,good,bad in KINDS.values()) >= 150
