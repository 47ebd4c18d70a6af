"What TensorBoard shows is what the log says, however often and in how many pieces it was told."
import io, sys
from dataclasses import replace
import numpy as np, pytest
from m2vaal_nb.foundations.log import read_log
from m2vaal_nb.loop import Job, Protocol, run
from m2vaal_nb.interop.tensorboard import Watch, class_values, picked_images, scalars, watch_logs

@pytest.fixture
def logs(few, tiny, tmp_path):
    "A folder with the logs of two runs."
    for name,sampler in dict(vaal='discriminator', classifier='margin').items(): list(run(Job(replace(tiny, learner=name, sampler=sampler), name, 3), tmp_path/'logs', 'cpu', few))
    return tmp_path/'logs'

def read_events(folder):
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    return accumulator.EventAccumulator(str(folder), size_guidance=dict(scalars=0, images=0, histograms=0, tensors=0)).Reload()

def assert_shown(folder, lines):
    "Every number of the lines, once, against the labels."
    seen = read_events(folder)
    assert set(seen.Tags()['scalars']) == {tag for l in lines for tag in scalars(l)}
    for tag in seen.Tags()['scalars']:
        want = [(l['n_labelled'], scalars(l)[tag]) for l in lines if tag in scalars(l)]
        assert [e.step for e in seen.Scalars(tag)] == [step for step,_ in want]
        assert np.allclose([e.value for e in seen.Scalars(tag)], [v for _,v in want])
    return seen

def test_finished_logs(logs, few, tmp_path):
    pytest.importorskip('tensorboard')
    with Watch(tmp_path/'events', few) as watch: watch_logs(logs, watch)
    assert sorted(o.name for o in (tmp_path/'events').iterdir()) == ['classifier-3', 'vaal-3']
    for name in ('classifier-3', 'vaal-3'):
        lines = read_log(logs/f'{name}.jsonl')
        seen = assert_shown(tmp_path/'events'/name, lines)
        queries = [l for l in lines if l['queried']]
        assert [e.step for e in seen.Histograms('queried/class')] == [e.step for e in seen.Images('queried/images')] == [l['n_labelled'] for l in queries]
        assert [e.histogram_value.num for e in seen.Histograms('queried/class')] == [len(l['queried']) for l in queries]
        assert 'protocol/text_summary' in seen.Tags()['tensors']
    assert not {t for t in read_events(tmp_path/'events/classifier-3').Tags()['scalars'] if t.startswith('discriminator')}

def test_pictures_are_those_picked(logs, few, tmp_path):
    pytest.importorskip('tensorboard')
    Image, line = pytest.importorskip('PIL.Image'), read_log(logs/'vaal-3.jsonl')[0]
    with Watch(tmp_path/'events', few) as watch: watch(line)
    grid = np.array(Image.open(io.BytesIO(read_events(tmp_path/'events/vaal-3').Images('queried/images')[0].encoded_image_string)))
    want = np.concatenate(list(few.x[line['queried']][:,0].numpy()), 1)
    assert grid.shape == (28, 28*8, 3) and (grid == want[...,None]).all()

def test_told_again_and_in_pieces_it_shows_once(logs, tmp_path):
    pytest.importorskip('tensorboard')
    lines = read_log(logs/'vaal-3.jsonl')
    for part in (lines[:2], lines[1:2], lines, lines[2:]):
        with Watch(tmp_path) as watch:
            for line in part: watch(line)
    assert not assert_shown(tmp_path/'vaal-3', lines).Tags()['images']

def test_more_rounds_replace_the_end_of_fewer(few, tiny, tmp_path):
    pytest.importorskip('tensorboard')
    with Watch(tmp_path/'events') as watch:
        for rounds in (1, 2):
            for line in run(Job(replace(tiny, rounds=rounds), 'random', 0), tmp_path/'logs', 'cpu', few): watch(line)
    assert_shown(tmp_path/'events/random-0', read_log(tmp_path/'logs/random-0.jsonl'))

def test_classes_and_images_of_a_line(logs, few):
    line = read_log(logs/'vaal-3.jsonl')[0]
    values, edges = class_values(line)
    assert np.histogram(values, edges)[0].tolist() == line['queried_classes']
    assert (picked_images(line, few, 3) == few.x[line['queried'][:3]]).all()
    with pytest.raises(ValueError, match="another run's"): picked_images(dict(line, queried=[5000]), few)

def test_without_tensorboard_one_sentence_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None)
    with pytest.raises(ImportError, match=r"pip install 'm2vaal_nb\[tensorboard\]'"): Watch(tmp_path)

def test_a_run_on_features_has_no_pictures(few, tmp_path):
    "Features stand where images do: their rows are nothing to look at, while the run goes on or from its log."
    pytest.importorskip('tensorboard')
    from m2vaal_nb.beyond import feature_learners
    data = replace(few, x=few.x.flatten(1)[:, ::16].float()/255, x_test=few.x_test.flatten(1)[:, ::16].float()/255)
    job = Job(Protocol(learner='linear', sampler='margin', n_init=20, budget=8, max_labels=36, n_val=50), 'linear', 0)
    with Watch(tmp_path/'events', data) as watch:
        for line in run(job, tmp_path/'logs', 'cpu', data): watch(line)
        watch_logs(tmp_path/'logs', watch)
    seen = assert_shown(tmp_path/'events/linear-0', read_log(tmp_path/'logs/linear-0.jsonl'))
    assert not seen.Tags()['images'] and len(seen.Histograms('queried/class')) == 2

def test_no_pictures_were_asked_for(logs, few, tmp_path):
    pytest.importorskip('tensorboard')
    with Watch(tmp_path/'events', few, at_most=0) as watch: watch_logs(logs, watch)
    assert not read_events(tmp_path/'events/vaal-3').Tags()['images']
