"The pictures of a run show what its log and its nets say."
import base64, io, json, re
from dataclasses import replace
import matplotlib.pyplot as plt, numpy as np, pytest
from PIL import Image
from conftest import ROOT
from m2vaal_nb.paper import pictures
from m2vaal_nb.data import Dataset
from m2vaal_nb.experiments import one_by_one, plan, run_grid
from m2vaal_nb.paper.revisit import revisit
from m2vaal_nb.foundations.log import read_log
from m2vaal_nb.loop import Job, Protocol, run
from m2vaal_nb.paper.pictures import draw_run, plot_class_bars, plot_scores, score_of, show_picks
from m2vaal_nb.samplers import SAMPLERS, SCORES

SMALL = dict(n_init=20, init_classes=(), budget=8, max_labels=44, rounds=2, steps=2, batch=8, n_val=50)
SCORED = dict(random='1 − probability of the predicted class (random does not rank by it)', m2_random='−P(labelled), by the discriminator (random does not rank by it)',
    margin='probability of the second class − that of the first', m2_vaal='−P(labelled), by the discriminator',
    algorithm_1='1 − probability of the predicted class (class_anchors does not rank by it)', algorithm_2='1 − probability of the predicted class (weighted_anchors does not rank by it)')

@pytest.fixture(scope='module')
def logs(few, tmp_path_factory):
    "A log of every kind of learner and sampler."
    return run_grid(plan('demo', SCORED, **SMALL), tmp_path_factory.mktemp('logs'), one_by_one, 'cpu', few, lambda s: None)

def draw(log, *args, **kw): return draw_run(log, *args, device='cpu', say=lambda s: None, **kw)

@pytest.mark.parametrize('method', SCORED)
def test_one_call_draws_any_run(method, logs, few):
    log = logs/f'{method}-0.jsonl'
    learner = read_log(log)[0]['protocol']['learner']
    figures = draw(log, data=few)
    assert set(figures) == {'classes', 'picks', 'scores'} | ({'map'} if learner != 'classifier' else set())
    assert figures['scores'].axes[0].get_xlabel() == SCORED[method]
    assert not plt.get_fignums() and all(fig.get_facecolor()[3] == 1 for fig in figures.values())

def test_every_pick_has_its_true_and_its_predicted_class(logs, few):
    log = logs/'m2_vaal-0.jsonl'
    line = read_log(log)[0]
    _, _, _, view = revisit(log, 0, 'cpu', few)
    guess = view.p_N_C.argmax(-1).numpy()[np.searchsorted(view.ids, line['queried'])]
    axes = draw(log, 0, data=few)['picks'].axes[:8]     # the rest of the row is blank
    for ax,i,g in zip(axes, line['queried'], guess, strict=True):
        right = g == few.y[i]
        assert ax.get_title() == f"{few.classes[few.y[i]]}\n{'✓' if right else '✗ ' + few.classes[g]}" and len(ax.patches) == (not right)
        assert np.array_equal(ax.images[0].get_array(), few.x[i, 0])
    assert sum(len(ax.patches) for ax in axes) == line['queried_wrong']
    assert draw(log, 0, data=few, n_images=3)['picks'].axes[0].get_title() == axes[0].get_title()

@pytest.mark.parametrize('n', [1, 9, 10, 11, 40])
def test_nothing_overlaps(n, few):
    fig = show_picks(few.x[:n], few.y[:n], (few.y[:n] + 1) % 10, few.classes, 'A title')
    fig.canvas.draw()
    boxes = [o.get_window_extent() for ax in fig.axes[:n] for o in (ax.title, ax.images[0])] + [fig._suptitle.get_window_extent()]
    meet = lambda a, b: min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    assert not [(a, b) for i,a in enumerate(boxes) for b in boxes[:i] if meet(a, b)]

def test_classes_need_the_log_only(logs):
    lines = read_log(logs/'margin-0.jsonl')
    fig = plot_class_bars(lines)
    assert [[bar.get_width() for bar in ax.patches] for ax in fig.axes] == [line['queried_classes'] for line in lines[:2]]
    assert len(plot_class_bars(lines*10, ncols=8).axes) == 24     # 20 rounds, and 4 places left free

def test_ranked_picks_are_at_their_end_of_the_scores(logs, few):
    for method in ('m2_vaal', 'margin'):
        line = read_log(logs/f'{method}-0.jsonl')[1]
        _, _, _, view = revisit(logs/f'{method}-0.jsonl', 1, 'cpu', few)
        score = score_of(line['protocol']['sampler'], view)[1].numpy()
        picked = np.isin(view.ids, line['queried'])
        assert picked.sum() == 8 and score[picked].min() >= score[~picked].max()

def test_a_strangers_sampler(logs, few, tmp_path, monkeypatch):
    "Without a score the axis says so; with one of its own it is drawn."
    monkeypatch.setitem(SAMPLERS, 'mine', mine := lambda view, budget: view.top(view.p_N_C[:,0], budget))
    log = tmp_path/'random-0.jsonl'
    log.write_text((logs/'random-0.jsonl').read_text().replace('"sampler": "random"', '"sampler": "mine"'))
    def axis(): return draw(log, data=few)['scores'].axes[0].get_xlabel()
    assert axis() == '1 − probability of the predicted class (mine does not rank by it)'
    monkeypatch.setitem(SCORES, mine, ('P(first class)', lambda view: view.p_N_C[:,0]))
    assert axis() == 'P(first class)'

def test_histogram_counts_every_row_once():
    g = np.random.default_rng(0)
    for score_U in (g.random(50), np.ones(50), g.random(50).astype(np.float32)*1e-6):
        ax = plot_scores(score_U, score_U[:5], [3, 4, 5], 'x').axes[0]
        assert ax.get_yscale() == 'log' and sum(bar.get_height() for bar in ax.patches if hasattr(bar, 'get_height')) == 3

def test_legends_stand_outside_the_data(logs, few):
    figures = draw(logs/'m2_vaal-0.jsonl', data=few)
    for name in ('scores', 'map'):
        ax = figures[name].axes[0]
        figures[name].canvas.draw()
        assert not ax.get_legend().get_window_extent().overlaps(ax.get_window_extent())

def figures_in(nb):
    "Source and picture of every figure that a notebook has saved."
    for cell in json.loads(nb.read_text(encoding='utf-8'))['cells']:
        for o in cell.get('outputs', []):
            if 'image/png' in o.get('data', {}): yield ''.join(cell['source']), ''.join(o['data']['image/png'])

def is_opaque(png):
    "Whether nothing of a picture is transparent: of any mode, since grey ones and those of few colours are saved as such."
    return Image.open(io.BytesIO(png)).convert('RGBA').getextrema()[3] == (255, 255)

def png_of(image, **kwargs):
    image.save(out := io.BytesIO(), 'PNG', **kwargs)
    return out.getvalue()

@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'L', 'LA', 'P'])
def test_opaque_pictures_of_every_mode_are_told(mode):
    assert is_opaque(png_of(Image.new('RGB', (4, 4), 'red').convert(mode)))

@pytest.mark.parametrize('picture', [(Image.new('RGBA', (4, 4), (9, 9, 9, 80)), {}), (Image.new('LA', (4, 4), (9, 80)), {}),
    (Image.new('P', (4, 4)), dict(transparency=0)), (Image.new('L', (4, 4)), dict(transparency=0))], ids=lambda p: p[0].mode)
def test_transparent_pictures_of_every_mode_are_told(picture):
    image, kwargs = picture
    assert not is_opaque(png_of(image, **kwargs))

@pytest.mark.parametrize('nb', [ROOT/'nbs/index.ipynb', *sorted((ROOT/'nbs/paper').glob('*.ipynb'))], ids=lambda o: o.stem)
def test_saved_figures_have_alt_text_and_look_the_same_on_a_dark_page(nb):
    for source,png in figures_in(nb):
        assert re.search(r'^#\| fig-alt: "[^"]{30,}"$', source, re.M), source
        assert is_opaque(base64.b64decode(png)), source

def contrast(color, page):
    "Of a colour to white (1) or black (0), as the Web Content Accessibility Guidelines define it."
    c = np.array([int(color[i:i+2], 16) for i in (1, 3, 5)])/255
    low, high = sorted([np.where(c <= .04045, c/12.92, ((c + .055)/1.055)**2.4) @ (.2126, .7152, .0722), page])
    return (high + .05)/(low + .05)

def test_colours_stand_out_and_are_those_of_the_map(logs, few):
    assert all(contrast(c, page) > 3 for c in (pictures.LABELLED, pictures.PICKED) for page in (0, 1))
    dots = draw(logs/'m2_vaal-0.jsonl', data=few)['map'].axes[0].collections
    assert [plt.matplotlib.colors.to_hex(d.get_facecolor()[0]).upper() for d in dots] == [pictures.UNLABELLED, pictures.LABELLED, pictures.PICKED]

def test_files_are_opaque_and_the_log_is_left_alone(logs, few, tmp_path):
    log, said = logs/'m2_vaal-0.jsonl', []
    before = log.read_bytes(), dict(plt.rcParams)
    draw_run(str(log), 0, str(tmp_path/"a/b"), "cpu", few, say=said.append)
    assert said[1:] == [str(tmp_path/f'a/b/m2_vaal-0-round-0-{name}.png') for name in ('classes', 'picks', 'scores', 'map')]
    for path in said[1:]:
        x = plt.imread(path)
        assert min(x.shape[:2]) > 150 and (x.shape[2] == 3 or (x[..., 3] == 1).all())
    assert (log.read_bytes(), dict(plt.rcParams)) == before and 'round 0 of m2_vaal, seed 0' in said[0]

def test_title_tells_when_the_nets_came_back_otherwise(logs, few, tmp_path):
    lines = read_log(logs/'random-0.jsonl')
    was = lines[1]['queried_wrong']
    lines[1]['queried_wrong'] = was + 1
    (tmp_path/'random-0.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    said = draw(tmp_path/'random-0.jsonl', data=few)['picks']._suptitle.get_text()
    assert f'{was} of 8 picks predicted wrong ({was + 1} when the run was made)' in said

def test_bad_input_ends_before_training(logs, few, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, 'revisit', None)
    log, other = logs/'margin-0.jsonl', Dataset(few.x, (few.y + 1) % 10, few.x_test, few.y_test, few.classes)
    (tmp_path/'file').touch()
    (tmp_path/'empty.jsonl').touch()
    for what,*args in ((r'There is no log .*nowhere', tmp_path/'nowhere.jsonl'), ('There is no log', tmp_path), ('no round that queried', tmp_path/'empty.jsonl'),
                       ('Round 2 of .* queried nothing: the rounds that did are 0 to 1', log, 2), ('Round -1', log, -1), ('Cannot write', log, 1, tmp_path/'file')):
        with pytest.raises(ValueError, match=what): draw(*args, data=few)
    for n in (0, 2.5, True):
        with pytest.raises(ValueError, match='`n_images` is .*at least 1'): draw(log, data=few, n_images=n)
    for data in (other, Dataset(few.x[:60], few.y[:60], few.x_test, few.y_test, few.classes)):
        with pytest.raises(ValueError, match='not the one of the run'): draw(log, data=data)

@pytest.mark.parametrize('sampler', ['margin', 'random', 'max_herding'])
def test_a_round_that_begins_without_a_label(sampler, few, tmp_path):
    "Nothing is labelled, so nothing labelled is drawn; after the first query it is."
    from m2vaal_nb.beyond import feature_learners, strategies
    data = replace(few, x=few.x.flatten(1)[:, ::16].float()/255, x_test=few.x_test.flatten(1)[:, ::16].float()/255)
    job = Job(Protocol(learner='linear', sampler=sampler, n_init=0, budget=8, max_labels=16, n_val=50), 'mine', 0)
    list(run(job, tmp_path, 'cpu', data))
    for round,labelled in (0, []), (1, ['labelled (8)']):
        figures = draw(job.log(tmp_path), round, data=data, images=few)
        assert set(figures) == {'classes', 'picks', 'scores', 'map'}
        for name in 'scores', 'map':
            words = [text.get_text() for text in figures[name].axes[0].get_legend().get_texts()]
            assert words == [f'unlabelled ({1050 - 8*round:,})', *labelled, 'picked (8)']
