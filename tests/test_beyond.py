"The wing beyond the paper: learned once, whatever stops it; heads, discriminators and doubt against their formulas; runs on features."
import hashlib, os, shutil, signal, time
from contextlib import contextmanager
from dataclasses import replace
import numpy as np, pytest, torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F
from m2vaal_nb.beyond import declared, feature_learners as fl, representation as rep
from m2vaal_nb.beyond.doubt_herding import doubt, doubt_herding, doubt_herding_rows, voice
from m2vaal_nb.beyond.contrast import Recipe, nt_xent
from m2vaal_nb.beyond.representation import Learned, add_learned, embed, learn
from m2vaal_nb.foundations.tensors import read_tensors, write_tensors
from m2vaal_nb.foundations import display
from m2vaal_nb.data import DATASETS, Dataset, Pool, PoolView, load_dataset, lookup
from m2vaal_nb.experiments import METHODS, one_by_one, run_grid
from m2vaal_nb.foundations.log import read_log
from m2vaal_nb.loop import Job, Protocol, dry_run, run, start_pool
from m2vaal_nb.samplers import margin_scores
from m2vaal_nb.scale.lockstep import in_lockstep
from m2vaal_nb.scale.workers import on_workers
from test_crash import ended, forked, one_thread, timeless

SHORT = Recipe(passes=3, batch=32)
PUBLISHED = Learned()

@pytest.fixture(scope='module')
def images(few): return few.x[:96]

@pytest.fixture(scope='module')
def whole(images): return learn(images, SHORT)

def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)

# --- the loss ---
@pytest.mark.parametrize('n', [1, 2, 3, 7, 20])
@pytest.mark.parametrize('width,temperature', [(1, .2), (4, .07), (64, 1.)])
def test_nt_xent_is_brute_force(n, width, temperature):
    z = torch.randn(2*n, width, generator=torch.Generator().manual_seed(n)).double()
    def cost(i):
        near = [float(torch.dot(z[i], z[j])/z[i].norm()/z[j].norm())/temperature for j in range(2*n) if j != i]
        partner = (i + n) % (2*n)
        return np.log(np.exp(near).sum()) - near[partner - (partner > i)]
    assert float(nt_xent(z, temperature)) == pytest.approx(np.mean([cost(i) for i in range(2*n)]))

# --- learning ---
def test_the_seed_is_all_the_chance(images, whole):
    torch.manual_seed(9)
    assert same(learn(images, SHORT), whole)
    assert not same(learn(images, replace(SHORT, seed=1)), whole)

@pytest.mark.parametrize('kind', ['contrastive', 'vae'])
@pytest.mark.parametrize('at', [1, 2, 3])
def test_learning_goes_on_after_sigkill_between_passes(kind, at, images, tmp_path):
    recipe, part = replace(SHORT, kind=kind), tmp_path/'part.safetensors'
    def die(text):
        if text.startswith(f'Pass {at} '): os.kill(os.getpid(), signal.SIGKILL)
    assert ended(forked(lambda: learn(images, recipe, part, die)))[1] == signal.SIGKILL
    assert part.exists() == (at > 1) and (at == 1 or read_tensors(part)[1]['passes'] == str(at-1))
    said = []
    assert same(learn(images, recipe, part, said.append), learn(images, recipe))
    resumed = [f'{at-1} of 3 passes were there already'] if at > 1 else []
    assert [s.split(':')[0] for s in said] == resumed + [f'Pass {i} of 3' for i in range(at, 4)]
    assert [', about ' in s for s in said[-(4-at):]] == [i < 3 for i in range(at, 4)]
    assert same(learn(images, recipe, part, said.append), learn(images, recipe)) and said[-1].startswith('3 of 3 passes were there already')

def test_learning_goes_on_after_sigkill_at_any_moment(images, whole, tmp_path):
    part, g, kills = tmp_path/'part.safetensors', np.random.default_rng(0), 0
    while True:
        pid = forked(lambda: learn(images, SHORT, part))
        time.sleep(g.uniform(.05, .6))
        os.kill(pid, signal.SIGKILL)
        if ended(pid)[1] == 0: break
        kills += 1
        if kills == 6: break
    assert same(learn(images, SHORT, part), whole)

def test_a_second_process_is_refused(images, tmp_path):
    part, ready = tmp_path/'part.safetensors', tmp_path/'ready'
    def wait(text): ready.touch(), time.sleep(60)
    pid = forked(lambda: learn(images, SHORT, part, wait))
    while not ready.exists(): time.sleep(.01)
    with pytest.raises(ValueError, match='is being written by another process'): learn(images, SHORT, part)
    os.kill(pid, signal.SIGKILL)
    ended(pid)
    learn(images, SHORT, part)

def test_a_damaged_part_is_one_sentence(images, tmp_path):
    part = tmp_path/'part.safetensors'
    part.write_bytes(b'nothing')
    with pytest.raises(ValueError, match='is damaged') as e: learn(images, SHORT, part)
    assert '\n' not in str(e.value) and part.read_bytes() == b'nothing'
    write_tensors(part, dict(a=torch.zeros(2)), passes='1')     # whole, but of another net
    with pytest.raises(ValueError, match='is damaged') as e: learn(images, SHORT, part)
    assert '\n' not in str(e.value)

@pytest.mark.parametrize('block', [1, 95, 96, 97, 500])
def test_features_do_not_depend_on_the_block(block, images, whole):
    torch.testing.assert_close(embed(whole, images, block=block), embed(whole, images), atol=1e-6, rtol=1e-5)

# --- published weights ---
@pytest.fixture
def shelf(tmp_path, monkeypatch):
    "A copy of the published weights that may be spoiled."
    shutil.copytree(rep.weights_folder(), tmp_path/'weights')
    monkeypatch.setattr(rep, 'weights_folder', lambda: tmp_path/'weights')

def test_a_name_is_the_hash_of_the_weights(shelf):
    raw, before = PUBLISHED.published.read_bytes(), PUBLISHED.name
    assert before == f'fashion_mnist_contrastive_12_0@{hashlib.sha256(raw).hexdigest()}'
    changed = bytearray(raw)
    changed[-1] ^= 1
    PUBLISHED.published.write_bytes(changed)
    assert PUBLISHED.name != before and PUBLISHED.name.startswith('fashion_mnist_contrastive_12_0@')
    PUBLISHED.published.unlink()
    assert PUBLISHED.name.endswith(hashlib.sha256(PUBLISHED.words.encode()).hexdigest())

@pytest.mark.parametrize('spoil', [lambda raw: raw[:-9], lambda raw: b'', lambda raw: b'\xff'*8 + raw[8:], lambda raw: raw[:4]])
def test_damaged_weights_are_one_sentence(spoil, shelf):
    PUBLISHED.published.write_bytes(spoil(PUBLISHED.published.read_bytes()))
    with pytest.raises(ValueError, match='is damaged') as e: PUBLISHED.nets()
    assert '\n' not in str(e.value)

@pytest.mark.parametrize('recipe', [Recipe(temperature=.5), Recipe(flip=False), Recipe(lr=1e-3)])
def test_another_recipe_of_the_same_length_is_learned_anew(recipe):
    other = Learned(recipe=recipe)
    assert other.short == PUBLISHED.short and other.published is None and other.name != PUBLISHED.name

def test_weights_of_another_recipe_are_refused(shelf):
    other = Learned(recipe=Recipe(seed=1))
    shutil.copy(other.published, PUBLISHED.published)
    with pytest.raises(ValueError, match='holds other weights'): PUBLISHED.nets()

# --- a dataset of features, from nothing ---
@pytest.fixture
def tiny_images(few, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    small = Dataset(few.x[:80], few.y[:80], few.x_test[:30], few.y_test[:30], few.classes)
    monkeypatch.setitem(DATASETS, 'tiny', lambda: small)
    return small

def test_a_disk_that_is_full_at_the_end_costs_no_pass(tiny_images, monkeypatch):
    "What was learned is kept until the weights are on the disk, and no longer."
    learned, said = Learned('tiny', SHORT), []
    part, weights = (rep.in_cache(learned, what) for what in ('part', 'weights'))
    def full(*_): raise OSError(28, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr(rep, 'write_weights', full)
        with pytest.raises(OSError, match='No space'): learned.nets(said.append)
    assert read_tensors(part)[1]['passes'] == '3' and not weights.exists()
    said.clear()
    nets = learned.nets(said.append)
    assert [s.split(':')[0] for s in said] == ['3 of 3 passes were there already']
    assert same(nets, rep.kept_nets(learned, learn(tiny_images.x, SHORT))) and not part.exists() and weights.exists()
    part.touch()                                        # killed between the two
    learned.nets(said.append)
    assert not part.exists() and len(said) == 1

def test_learned_from_nothing(tiny_images, tmp_path, monkeypatch):
    learned, said, steps = Learned('tiny', SHORT), [], []
    class Bar:
        def update(self, n=1): steps.append(n)
    @contextmanager
    def bar(total, done): yield (steps.extend([total, done]), Bar())[1]
    progress = rep.progress
    monkeypatch.setattr(rep, 'progress', lambda items, what, total=None, done=0: progress(items, what) if items else bar(total, done))
    nets = learned.nets(said.append)
    assert [s.split(':')[0] for s in said] == [f'Pass {i} of 3' for i in (1, 2, 3)]
    assert steps == [9, 0, *[1]*9]
    monkeypatch.setitem(DATASETS, learned.name, learned)
    data = load_dataset(add_learned(learned))
    assert torch.equal(data.x, embed(nets, tiny_images.x)) and torch.equal(data.x_test, embed(nets, tiny_images.x_test))
    assert (data.y == tiny_images.y).all() and data.classes == tiny_images.classes
    assert torch.equal(data.x, embed(learn(tiny_images.x, SHORT), tiny_images.x))      # rounded on disk, rounded here

    monkeypatch.setattr(rep, 'learn', lambda *_: pytest.fail('learned twice'))
    folder = tmp_path/'cache/m2vaal_nb/learned'
    kept = sorted(o.name for o in folder.glob('[!.]*'))
    assert kept == [f'{learned.name}.features.safetensors', f'{learned.name}.weights.safetensors']
    assert torch.equal(learned().x, data.x)
    (folder/kept[0]).unlink()
    assert torch.equal(learned().x, data.x)
    (folder/kept[0]).write_bytes(b'x'*100)
    with pytest.raises(ValueError, match='is damaged') as e: learned()
    assert '\n' not in str(e.value)

def test_a_dataset_that_is_learned_first_says_how_far_it_is(tiny_images, monkeypatch, capsys):
    monkeypatch.setenv('TQDM_DISABLE', '')
    monkeypatch.setattr(display, 'EVERY', 0.)
    Learned('tiny', SHORT)()
    out, err = capsys.readouterr()
    assert not out and {line.partition(':')[0] for line in err.splitlines()} == {'learning features', 'features'}

def test_features_of_other_images_are_refused(tiny_images, monkeypatch):
    learned = Learned('tiny', SHORT)
    learned()
    monkeypatch.setitem(DATASETS, 'tiny', lambda: replace(tiny_images, x=tiny_images.x[:70], y=tiny_images.y[:70]))
    with pytest.raises(ValueError, match='learned from other images of this name'): learned()

def test_two_processes_learn_once(tiny_images, tmp_path):
    learned, said = Learned('tiny', SHORT), tmp_path/'said'
    def work(): learned.nets(lambda s: said.open('a').write(s + '\n'))
    pids = [forked(work) for _ in range(2)]
    assert all(ended(pid)[1] == 0 for pid in pids)
    assert sum(s.startswith('Pass') for s in said.read_text().splitlines()) == 3

# --- heads ---
@pytest.mark.parametrize('C', [.1, 10., 100.])
@pytest.mark.parametrize('classes', [(2,), (1, 3), (0, 2, 3), (0, 1, 2, 3)])
def test_a_head_is_scikit_learns(classes, C):
    g = np.random.default_rng(len(classes))
    h, y = g.normal(size=(60, 5)).astype('f4'), g.permutation(np.resize(classes, 60))
    p = fl.fit_head(h, y, 4, C)(torch.tensor(h))
    unseen = np.setdiff1d(range(4), classes)
    assert (p[:,unseen] == 0).all()
    torch.testing.assert_close(p.sum(1), torch.ones(60))
    want = np.ones((60, 1))
    if len(classes) > 1: want = LogisticRegression(C=C, tol=1e-9, max_iter=5000).fit(h.astype(float), y).predict_proba(h.astype(float))
    np.testing.assert_allclose(p[:,list(classes)], want, atol=2e-3)

# --- the discriminator ---
def test_the_auc_is_scikit_learns_on_rows_left_out(monkeypatch):
    fitted, fit = [], fl.fit_head
    monkeypatch.setattr(fl, 'fit_head', lambda h, y, *args: fitted.append((h, y)) or fit(h, y, *args))
    g = torch.Generator().manual_seed(0)
    z_U, z_L = torch.randn(500, 4, generator=g), torch.randn(61, 4, generator=g) + .7
    D = fl.tell_labelled(z_U, z_L, seed=3)
    (h, y), (other_h, other_y) = fitted
    rows = {tuple(r.tolist()) for r in torch.cat([h, other_h])}
    assert len(rows) == 2*61 and y.sum() + other_y.sum() == 61                 # each row in one half
    aucs = [roc_auc_score(other_y, D.heads[0](other_h)[:,1]), roc_auc_score(y, D.heads[1](h)[:,1])]
    assert D.auc == pytest.approx(np.mean(aucs))
    mean = torch.stack([head(z_U)[:,1] for head in D.heads]).logit().mean(0)
    assert D(z_U).shape == (500,) and (D(z_U) - mean.sigmoid()).abs().max() < .05

@pytest.mark.parametrize('seed', range(5))
def test_a_discriminator_is_blind_or_sees(seed):
    g = torch.Generator().manual_seed(seed)
    z_U, z_L = (torch.randn(n, 6, generator=g) for n in (3000, 300))
    assert abs(fl.tell_labelled(z_U, z_L, seed=seed).auc - .5) < .08
    assert fl.tell_labelled(z_U, z_L + 2, seed=seed).auc > .95

@pytest.mark.parametrize('n_L,n_U', [(0, 9), (1, 9), (3, 9), (9, 1), (9, 3), (4, 4), (5, 4)])
def test_too_few_rows_tell_nothing(n_L, n_U):
    g = torch.Generator().manual_seed(0)
    z_U, z_L = torch.randn(n_U, 3, generator=g), torch.randn(n_L, 3, generator=g)
    D = fl.tell_labelled(z_U, z_L)
    if min(n_L, n_U) < 4: assert D.auc == .5 and (D(z_U) == .5).all()
    else: assert len(D.heads) == 2 and 0 <= D.auc <= 1

# --- doubt ---
@pytest.mark.parametrize('gamma', [0., .3, 1., 2.])
def test_doubt_is_its_formula(gamma):
    g = np.random.default_rng(0)
    p, d = g.dirichlet([.4]*5, 200), g.random(200)
    d[:4] = 0, .5, 1, .25
    def one(p, d):
        first, second = sorted(p)[::-1][:2]
        return 1 - (first - second)*min(1, 2*d)**gamma
    np.testing.assert_allclose(doubt(p, d, gamma), [one(*row) for row in zip(p, d)], atol=1e-6)
    if not gamma: torch.testing.assert_close(doubt(p, d, 0), 1 + margin_scores(p))

@pytest.mark.parametrize('auc,gamma', [(0, 0), (.49, 0), (.5, 0), (.75, .5), (1, 1)])
def test_voice(auc, gamma): assert voice(auc) == pytest.approx(gamma)

@pytest.mark.parametrize('auc', [-.1, 1.1, float('nan'), '1'])
def test_no_voice(auc):
    with pytest.raises(ValueError, match='`auc`'): voice(auc)

@pytest.fixture(scope='module')
def scene():
    "Unlabelled features of unit length, probabilities, labelled features."
    g = torch.Generator().manual_seed(1)
    z = F.normalize(torch.randn(340, 8, generator=g), dim=-1)
    return z[:300], torch.rand(300, 4, generator=g).softmax(-1), z[300:]

def test_doubt_herding_is_deterministic_on_any_number_of_threads(scene):
    z, p, z_L = scene
    picks = [doubt_herding_rows(z, p, z_L, 25, seed=s).tolist() for s in (0, 0, 1)]
    assert picks[0] == picks[1] and len(set(picks[0])) == 25
    torch.set_num_threads(4)
    more = doubt_herding_rows(z, p, z_L, 25, seed=0).tolist()
    assert torch.get_num_threads() == 4
    torch.set_num_threads(1)
    assert more == picks[0]

def test_a_budget_of_the_pool_and_more(scene):
    z, p, z_L = scene
    z, p = z[:30], p[:30]
    assert sorted(doubt_herding_rows(z, p, z_L, 30)) == [*range(30)]
    with pytest.warns(UserWarning, match='more than the 30 left'): assert len(doubt_herding_rows(z, p, z_L, 31)) == 30

@pytest.mark.parametrize('n_L', [0, 1, 3, 4])
def test_few_or_no_labelled_rows(scene, n_L):
    z, p, z_L = scene
    view = PoolView(np.arange(300), 0, p, z, z_L_D=z_L[:n_L].reshape(n_L, 8), y_L=np.zeros(n_L, int))
    assert len(np.unique(doubt_herding(view, 12))) == 12

@pytest.mark.parametrize('spoilt', range(3))
@pytest.mark.parametrize('v', [float('nan'), float('inf')])
def test_what_is_no_number_is_refused(scene, spoilt, v):
    parts = [t.clone() for t in scene]
    parts[spoilt][0,0] = v
    with pytest.raises(ValueError, match='finite') as e: doubt_herding_rows(*parts, 5)
    assert '\n' not in str(e.value)

# --- runs on features ---
@pytest.fixture(scope='module')
def features(few):
    "Features of a few hundred images, by the published weights."
    nets = PUBLISHED.nets()
    return replace(few, x=embed(nets, few.x[:300]), y=few.y[:300], x_test=embed(nets, few.x_test))

@pytest.fixture
def short():
    from m2vaal_nb.experiments import PROTOCOLS
    return replace(PROTOCOLS['learned_2b'], n_init=30, budget=16, max_labels=100, rounds=2, n_val=20)

SLUGS = 'linear_doubt_herding', 'linear_uherding', 'linear_discriminator', 'linear_random'

def job_of(p, slug, seed=0):
    method = METHODS[slug]
    return Job(replace(p, learner=method.learner, sampler=method.sampler), slug, seed)

@pytest.mark.parametrize('slug', SLUGS)
def test_a_killed_run_ends_with_the_same_log(slug, short, features, tmp_path):
    job = job_of(short, slug)
    list(run(job, tmp_path/'whole', 'cpu', features))
    want = timeless(job.log(tmp_path/'whole'))
    assert [l['n_labelled'] for l in want] == [30, 46, 62] and all(l['d_auc'] is not None for l in want)
    def stopped():
        for line in run(job, tmp_path/'killed', 'cpu', features): os.kill(os.getpid(), signal.SIGKILL)
    for n in 1, 2:
        assert ended(forked(stopped))[1] == signal.SIGKILL
        assert timeless(job.log(tmp_path/'killed')) == want[:n]
    list(run(job, tmp_path/'killed', 'cpu', features))
    assert timeless(job.log(tmp_path/'killed')) == want

def test_every_engine_writes_the_same_logs(short, features, tmp_path):
    jobs = [job_of(short, slug, seed) for slug in SLUGS[:2] for seed in (0, 1)]
    engines = dict(alone=one_by_one, workers=on_workers(2), lockstep=in_lockstep())
    for name,engine in engines.items(): run_grid(jobs, tmp_path/name, engine, 'cpu', features, lambda s: None)
    for job in jobs:
        want = timeless(job.log(tmp_path/'alone'))
        assert len(want) == 3
        for name in engines: assert timeless(job.log(tmp_path/name)) == want

def test_images_where_features_are_read_and_the_other_way_round(short, tiny, few, features):
    pixels, _ = start_pool(few, tiny, 0)
    rows, _ = start_pool(features, replace(tiny, n_val=20), 0)
    with pytest.raises(ValueError, match='The learner linear reads features, and fashion_mnist holds images') as e:
        dry_run(replace(tiny, learner='linear'), pixels)
    assert '\n' not in str(e.value)
    with pytest.raises(ValueError, match='The learner m2_vaal reads images, and fashion_mnist_contrastive.* holds features'):
        dry_run(replace(short, learner='m2_vaal'), rows)

@pytest.mark.parametrize('engine', [one_by_one, on_workers(1), in_lockstep()], ids=['alone', 'workers', 'lockstep'])
def test_every_engine_refuses_them_in_one_sentence(engine, tiny, few, tmp_path):
    job = Job(replace(tiny, learner='linear'), 'linear_random', 0)
    with pytest.raises(ValueError, match='reads features') as e: run_grid([job], tmp_path, engine, 'cpu', few, lambda s: None)
    assert '\n' not in str(e.value) and not job.log(tmp_path).exists()
