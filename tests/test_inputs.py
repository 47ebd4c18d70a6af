"What is checked at one door is checked at all: the same table of inputs for every function that takes inputs of a kind."
import warnings
from fractions import Fraction
import numpy as np, pandas as pd, pytest, scipy.sparse, torch
from m2vaal_nb.foundations.inputs import *

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
x_6 = np.random.default_rng(0).integers(0, 256, (6, 1, 8, 8)).astype('u1')
KINDS = { # kind: (plain, good forms, bad values)
    'probs': (p_6_3, FLOATS, ROWS_OF | UNREAL | {'twice': lambda a: 2*a, 'negative': lambda a: 2*a - 1/3, 'no class': lambda a: a[:,:0]}),
    'latents': (z_6_2, FLOATS, ROWS_OF | UNREAL | {'too large to square': spoilt(1e200), 'no dimension': lambda a: a[:,:0]}),
    'scores': (u_6, FLOATS, NOTHING | UNREAL),
    'labels': (y_6, INTEGERS, NOTHING | {'fractions': lambda a: a + .5, 'whole floats': lambda a: a.astype(float), 'booleans': lambda a: a > 0,
        'negative': lambda a: a - 1, 'missing in pandas': lambda a: pd.Series(a).where(a > 0), 'too large': lambda a: a + 2**40}),
    'images': (x_6, {k: f for k,f in FORMS.items() if 'pandas' not in k and 'objects' not in k and 'list' != k and 'tuple' != k}, {
        'floats in [0, 1]': lambda a: a/255, 'floats in [-1, 1]': lambda a: torch.tensor(a)/127.5 - 1, 'floats to 255': lambda a: a.astype('f4'),
        'integers': lambda a: a.astype(int), '16 bits': lambda a: a.astype('u2')*257, 'booleans': lambda a: a > 9, 'NaN': lambda a: a*nan,
        'channels last': lambda a: np.repeat(a, 3, 1).transpose(0, 2, 3, 1), 'no channels': lambda a: a[:,0], 'one image': lambda a: a[0],
        'none': lambda a: a[:0], 'text': lambda a: a.astype(str), 'five axes': lambda a: a[None], 'pixels in rows': lambda a: a.reshape(6, -1)}),
    'int': (2, {k: lambda a, _, k=k: k(a) for k in (np.int8, np.uint64, np.intp, torch.tensor, np.array)},
        {repr(v): lambda _, v=v: v for v in (-1, 2.5, 2., True, np.True_, '2', None, [2], nan, np.float64(2), torch.tensor(2.), 2j)}),
    'number': (2, {k: lambda a, _, k=k: k(a) for k in (int, float, np.int8, np.float16, np.float32, torch.tensor, np.array)},
        {repr(v): lambda _, v=v: v for v in (-1, True, np.True_, '2', None, [2.], nan, inf, -inf, np.float32('nan'), torch.tensor(nan), 2j, 10**400)}),
}
KINDS |= {'ids': KINDS['labels'], 'budget': KINDS['int'][:2] + (KINDS['int'][2] | {'0': lambda _: 0},)}

def sentence(e):
    "A complaint is one sentence in one line."
    said = str(e.value)
    assert said.endswith('.') and '\n' not in said and said[0] in f'`{said[0].upper()}' and len(said) < 300, said

# --- the converters themselves ---
CONVERT = {
    'probs': lambda v: as_probs(v, rows=6),
    'latents': lambda v: as_latents(v, rows=6, width=2),
    'scores': lambda v: as_scores(v, 6),
    'labels': lambda v: as_labels(v, 6, n_classes=3),
    'images': lambda v: as_images(v, rows=6),
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

def test_names_and_flags():
    assert as_name(np.str_('cpu'), ('auto', 'cpu'), 'device') == 'cpu' and as_flag(np.False_, 'balanced') is False
    for bad in ('CPU', '', None, ['cpu'], 0, np.array(['cpu'])):
        with pytest.raises(ValueError, match='Unknown device .*: choose one of auto, cpu.') as e: as_name(bad, dict(auto=1, cpu=2), 'device')
        sentence(e)
    for bad in (0, 1, 'no', None, [True]):
        with pytest.raises(ValueError, match='must be True or False') as e: as_flag(bad, 'balanced')
        sentence(e)

def test_the_table_is_large():
    assert sum(len(good) + len(bad) for _,good,bad in KINDS.values()) >= 150
