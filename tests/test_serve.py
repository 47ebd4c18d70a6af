"The server for Label Studio: what it is told it keeps, what it is asked it answers, whoever asks, and whatever becomes of it."
import base64, json, re, signal, subprocess, sys, threading, time
from contextlib import chdir
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener
import numpy as np, pytest, torch
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from starlette.testclient import TestClient
from m2vaal_nb.cli import m2vaal_serve
from m2vaal_nb.interop.label_studio import label_studio_config
from m2vaal_nb.interop.label_studio_api import LabelStudio, all_tasks, ask
from m2vaal_nb.interop.label_studio_ml import Answer, Control, class_choices, task_images
from m2vaal_nb.own_images import relearn, serve as module
from m2vaal_nb.own_images.embeddings import read_embeddings
from m2vaal_nb.own_images.query import known_pool, next_images
from m2vaal_nb.own_images.relearn import *
from m2vaal_nb.own_images.serve import *

CLASSES = 'cat', 'dog', 'hen'
CONFIG = label_studio_config(CLASSES)
N = 60
PATHS = [f'{i:02}.png' for i in range(N)]
TRUTH = np.arange(N) % 3

@pytest.fixture(scope='module')
def h():
    "Three groups of directions, each around its own axis."
    g = np.random.default_rng(0)
    z = np.eye(8)[TRUTH] + .1*g.standard_normal((N, 8))
    return torch.nn.functional.normalize(torch.tensor(z).float(), dim=1)

def task(i, **more): return dict(id=i, data=dict(image=f'/data/local-files/?d=photos/{PATHS[i]}'), **more)
def event(action, **what): return dict(action=action, project=dict(id=3, label_config=CONFIG), **what)
def annotation(i, *names, **more):
    result = [dict(id='r', from_name='label', to_name='image', type='choices', value=dict(choices=[*names]))]
    return dict(id=100 + i, result=result, **more)
def created(i, *names, action='ANNOTATION_CREATED', **more):
    return event(action, annotation=annotation(i, *(names or [CLASSES[TRUTH[i]]]), **more), task=task(i))
def asked(*rows): return dict(project='3.17', label_config=CONFIG, tasks=[task(i) for i in rows])
SETUP = dict(project='3.17', schema=CONFIG, hostname='', access_token='', extra_params=None)

def backend_of(h, kept, *args, said=None, **kwargs):
    said = [] if said is None else said
    return Backend(h, PATHS, kept, *args, say=lambda line: said.append(str(line)), **kwargs)

def settled(backend, secs=30):
    assert backend.idle.wait(secs)
    return backend.model

def labels(backend): return {a.image: a.name for a in backend.state.answers.values()}

# --- what is told ---
def test_annotations_come_change_and_go(h, tmp_path):
    kept = tmp_path/'kept.json'
    with backend_of(h, kept) as b:
        for i in range(6): answer_webhook(b, created(i))
        answer_webhook(b, created(1, 'hen', action='ANNOTATION_UPDATED'))
        answer_webhook(b, created(2, was_cancelled=True, action='ANNOTATION_UPDATED'))
        answer_webhook(b, created(3, 'cow', action='ANNOTATION_UPDATED'))          # no class
        answer_webhook(b, created(4, 'cat', 'dog', action='ANNOTATION_UPDATED'))   # no single one
        assert labels(b) == {'00.png': 'cat', '01.png': 'hen', '05.png': 'hen'}
        answer_webhook(b, event('ANNOTATIONS_DELETED', annotations=[dict(id=100), dict(id=999)]))
        answer_webhook(b, event('TASKS_DELETED', tasks=[dict(id=5)]))
        assert labels(b) == {'01.png': 'hen'}
        both = [annotation(i, 'cat') for i in (7, 8)], [task(7), task(8)]
        assert answer_webhook(b, event('ANNOTATIONS_CREATED', annotation=both[0], task=both[1])) == dict(answers=3)
        settled(b)
    assert read_state(kept) == b.state

@pytest.mark.parametrize('action', ['PROJECT_UPDATED', 'LABEL_LINK_CREATED', 'anything'])
def test_no_news(h, tmp_path, action):
    b = backend_of(h, tmp_path/'kept.json')
    assert answer_webhook(b, event(action)) == dict(answers=0) and b.state == State()

def test_people_who_disagree_give_no_label():
    said = {1: Answer(1, '00.png', 'cat'), 2: Answer(1, '00.png', 'dog'), 3: Answer(2, '01.png', 'dog')}
    assert known_labels(State(3, CONFIG, said), PATHS[:3], CLASSES).tolist() == [-1, 1, -1]
    said[4] = Answer(1, '00.png', 'cat', True)
    assert known_labels(State(3, CONFIG, said), PATHS[:3], CLASSES).tolist() == [0, 1, -1]
    assert known_labels(State(3, CONFIG, said), PATHS[:3], ('hen', 'cow')).tolist() == [-1, -1, -1]

def test_another_project_is_refused_and_changes_nothing(h, tmp_path):
    b = backend_of(h, tmp_path/'kept.json')
    answer_webhook(b, created(0))
    other = created(1) | dict(project=dict(id=4, label_config=CONFIG))
    for answer, body in ((answer_webhook, other), (answer_setup, SETUP | dict(project='4.1')), (answer_predict, asked(1) | dict(project=4))):
        with pytest.raises(ValueError, match='follows project 3 .* not 4'): answer(b, body)
    assert labels(b) == {'00.png': 'cat'}

def test_another_interface_is_followed(h, tmp_path):
    "Its classes are other ones, in another order, of a control with another name."
    with backend_of(h, tmp_path/'kept.json') as b:
        for i in range(9): answer_webhook(b, created(i))
        settled(b)
        other = '<View><Image name="photo" value="$image"/><Choices name="kind" toName="photo"><Choice value=" hen "/><Choice value="cat"/></Choices></View>'
        answer_setup(b, SETUP | dict(schema=other))
        settled(b)
        answers = answer_predict(b, asked(11, 12) | dict(label_config=other))['results']
    assert [a['result'][0]['value']['choices'] for a in answers] == [[' hen '], ['cat']]
    assert {(a['result'][0]['from_name'], a['result'][0]['to_name']) for a in answers} == {('kind', 'photo')}

# --- what is asked ---
def test_an_order_from_the_first_question_on(h, tmp_path):
    with backend_of(h, tmp_path/'kept.json', Choosing(ahead=4)) as b:
        quick = answer_setup(b, SETUP)['model_version']
        version = settled(b).version
        assert quick.startswith('m2vaal-0-') and quick != version
        first = answer_predict(b, asked(*range(N)))
        assert first['model_version'] == version and all(p['result'] == [] for p in first['results'])
        assert sorted(p['score'] for p in first['results']) == pytest.approx(np.arange(N)/N)
        for i in range(6): answer_webhook(b, created(i))
        model = settled(b)
        later = answer_predict(b, asked(*range(N)))['results']
    assert {p['model_version'] for p in later} == {model.version} != {version}
    scores = [p['score'] for p in later]
    assert scores[:6] == [1]*6 and sorted(scores[6:]) == pytest.approx(np.arange(N - 6)/(N - 6))
    assert [np.argmin(scores)] == model.order[:1]
    right = [p['result'][0]['value']['choices'] == [CLASSES[c]] for p,c in zip(later, TRUTH)]
    assert np.mean(right) > .9

@pytest.mark.parametrize('project', [3, '3', '3.1700000000', dict(id=3)])
def test_an_event_may_leave_out_the_interface(h, tmp_path, project):
    "Where it is known; another project is still refused, and before it is known there is nothing to go by."
    b = backend_of(h, tmp_path/'kept.json')
    bare = created(1) | dict(project=project)
    with pytest.raises(ValueError, match='not XML'): answer_webhook(b, bare)
    assert answer_webhook(b, created(0)) == dict(answers=1)
    assert answer_webhook(b, bare) == dict(answers=2)
    with pytest.raises(ValueError, match='follows project 3 of Label Studio, not 4'): answer_webhook(b, created(2) | dict(project=4))

@pytest.mark.parametrize('ahead', [1, 5, 53, 54, 55, 59, 60, 61, 1000])
@pytest.mark.parametrize('method', ['linear_doubt_area', 'linear_doubt_herding', 'linear_margin', 'linear_coreset'])
@pytest.mark.parametrize('n', [0, 6])
def test_the_order_begins_with_what_is_picked(h, ahead, method, n):
    y_N = np.where(np.arange(N) < n, TRUTH, -1)
    model = fitted(h, y_N, class_choices(CONFIG), Choosing(method, ahead))
    assert sorted(model.order) == list(range(n, N))
    budget = min(ahead, N - n)
    picks = next_images(known_pool(h, y_N, CLASSES), budget, method).id
    assert model.order[:budget].tolist() == picks.tolist()

@pytest.mark.parametrize('n, rows', [(N, None), (1, [0]), (1, [1]), (N - 1, None), (3, [])])
def test_much_or_little_is_left(h, n, rows):
    y_N = np.where(np.arange(N) < n, TRUTH, -1)
    rows = None if rows is None else np.array(rows, int)
    model = fitted(h, y_N, class_choices(CONFIG), rows=rows)
    left = range(n, N) if rows is None else [r for r in rows if r >= n]
    assert sorted(model.order) == list(left) and (model.place_N[:n] == 1).all() and model.p_N_C.shape == (N, 3)

LATE = dict(m1m2_doubt_area='linear_doubt_area', m1m2_graph_doubt_area='linear_doubt_area', propagation_margin='linear_margin') # What needs a label to begin: what stands in for it

@pytest.mark.parametrize('method', LATE)
def test_what_needs_a_label_picks_before_the_first_one_too(h, tmp_path, method):
    "And after one, after some of one class, and after a restart at any of these times."
    kept, said, n = tmp_path/'kept.json', [], 0
    def restarted(): return backend_of(h, kept, Choosing(method, 4), said=said)
    with restarted() as b:
        answer_setup(b, SETUP)
        first = settled(b).order[:4].tolist()
    assert first == next_images(known_pool(h, None, CLASSES), 4, LATE[method]).id.tolist()
    for told in (), (0,), (3, 6), (1,):
        with restarted() as b:
            for i in told: answer_webhook(b, created(i))
            model, n = settled(b), n + len(told)
        assert len(model.order) == N - n and not [line for line in said if line.startswith('learn')]
        assert (model.p_N_C is None) == (n == 0) and (n == 0 or torch.allclose(model.p_N_C.sum(1), torch.ones(N)))
    assert {*model.p_N_C.argmax(1).tolist()} == {0, 1}

@pytest.mark.parametrize('method', LATE)
def test_one_image_for_what_needs_a_label(h, method):
    for y in -1, 0:
        model = fitted(h[:1], np.array([y]), class_choices(CONFIG), Choosing(method))
        assert len(model.order) == (y < 0)

def test_the_first_answer_waits_for_no_picking(h, tmp_path, monkeypatch):
    go, real = threading.Event(), relearn.first_images
    def slow(*args):
        assert go.wait(30)
        return real(*args)
    monkeypatch.setattr(relearn, 'first_images', slow)
    with backend_of(h, tmp_path/'kept.json', Choosing(ahead=3)) as b:
        quick = answer_setup(b, SETUP)['model_version']
        assert answer_predict(b, asked(0))['model_version'] == quick and answer_health(b)['is_training']
        go.set()
        model = settled(b)
    assert model.version != quick
    assert TRUTH[model.order[:3]].tolist() in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0])   # one of each group

def test_half_precision(h):
    "In which a million features are kept."
    y_N = np.where(np.arange(N) < 6, TRUTH, -1)
    model = fitted(h.half(), y_N, class_choices(CONFIG))
    assert (model.p_N_C.argmax(1).numpy() == TRUTH).mean() > .9

def test_one_image(h):
    for y in -1, 0:
        model = fitted(h[:1], np.array([y]), class_choices(CONFIG))
        assert len(model.order) == (y < 0)

def test_strays_get_an_empty_prediction_and_a_line(h, tmp_path):
    said = []
    b = backend_of(h, tmp_path/'kept.json', said=said)
    for i in range(3): answer_webhook(b, created(i))
    learn(b)
    strays = [dict(data=dict(image='s3://else/where.png')), dict(data=dict(text='hello')), dict(data={}), dict(data=dict(image=[1], path={}))]
    body = asked(5) | dict(tasks=[*strays, task(5)])
    answers = answer_predict(b, body)['results']
    assert [len(a['result']) for a in answers] == [0, 0, 0, 0, 1] and [a['score'] for a in answers[:4]] == [1]*4
    assert '4 of 5 tasks are of no image' in said[-1]
    assert answer_webhook(b, created(4) | dict(task=strays[0] | dict(id=9))) == dict(answers=3)
    assert 'An annotation is of no image' in said[-1]
    assert answer_predict(b, asked())['results'] == []

@pytest.mark.parametrize('reference, image', [
    ('/data/local-files/?d=photos/cats/a.png', 'cats/a.png'), ('s3://bucket/x/b.png', 'b.png'), ('https://my.org/cats/a.png?size=2', 'cats/a.png'),
    ('/data/upload/1/3f2a9c1b-b.png', 'b.png'), (r'C:\photos\cats\a.png', 'cats/a.png'), ('a.png', None), ('c.png', None), ('', None), (7, None)])
def test_images_by_what_follows_any_prefix(reference, image):
    assert task_images([dict(data=dict(image=reference))], dict.fromkeys(['cats/a.png', 'b.png'])) == [image]

# --- nothing is lost, nobody waits ---
class Slow:
    "Training that waits to be let go on, and counts."
    def __init__(self, monkeypatch):
        self.go, self.begun, self.versions = threading.Event(), threading.Event(), []
        self.fitted = module.fitted
        monkeypatch.setattr(module, 'fitted', self)
    def __call__(self, h, y_N, *args):
        if (y_N >= 0).any():
            self.begun.set()
            assert self.go.wait(30)
            self.versions.append(int((y_N >= 0).sum()))
        return self.fitted(h, y_N, *args)

def test_events_during_a_training_are_kept_and_nobody_waits(h, tmp_path, monkeypatch):
    slow = Slow(monkeypatch)
    with backend_of(h, tmp_path/'kept.json') as b:
        answer_setup(b, SETUP)
        version = settled(b).version
        answer_webhook(b, created(0))
        assert slow.begun.wait(30)
        for i in range(1, 9):
            answer_webhook(b, created(i))
            assert answer_predict(b, asked(20))['model_version'] == answer_setup(b, SETUP)['model_version'] == version
        assert answer_health(b)['is_training'] and len(read_state(tmp_path/'kept.json').answers) == 9
        slow.go.set()
        settled(b)
        assert not answer_health(b)['is_training']
    assert slow.versions == [1, 9]      # eight annotations, one training

def test_many_threads_tell_at_once(h, tmp_path):
    with backend_of(h, tmp_path/'kept.json') as b:
        threads = [threading.Thread(target=answer_webhook, args=(b, created(i))) for i in range(40)]
        for t in threads: t.start()
        for t in threads: t.join()
        version = settled(b).version
    assert len(read_state(tmp_path/'kept.json').answers) == 40
    assert version.startswith('m2vaal-40-') and backend_of(h, tmp_path/'kept.json').model.version == version

def test_a_training_that_fails_is_said_and_tried_again(h, tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'LONGEST', .05)
    said, fails = [], iter([True, True])
    real = module.fitted
    def fitted(h, y_N, *args):
        if (y_N >= 0).any() and next(fails, False): raise RuntimeError('no memory')
        return real(h, y_N, *args)
    monkeypatch.setattr(module, 'fitted', fitted)
    with backend_of(h, tmp_path/'kept.json', said=said) as b:
        answer_setup(b, SETUP)
        before = settled(b).version
        answer_webhook(b, created(0))
        assert answer_predict(b, asked(5))['model_version'] == before
        end = time.monotonic() + 30
        while b.model.version == before and time.monotonic() < end: time.sleep(.01)
    assert b.model.version.startswith('m2vaal-1-') and said.count('learn: no memory') == 2

def test_a_full_disk_keeps_nothing_and_says_so(h, tmp_path, monkeypatch):
    b = backend_of(h, tmp_path/'kept.json')
    with TestClient(serving_app(b), 'http://localhost') as client:
        assert client.post('/webhook', json=created(0)).status_code == 200
        def full(*_): raise OSError(28, 'No space left on device')
        with monkeypatch.context() as m:
            m.setattr(relearn, 'write_whole', full)
            answer = client.post('/webhook', json=created(1))
        assert answer.status_code == 507 and 'No space left' in answer.json()['error']
        assert labels(b) == {'00.png': 'cat'} and read_state(tmp_path/'kept.json') == b.state
        assert client.post('/webhook', json=created(1)).json() == dict(answers=2)

@pytest.mark.parametrize('text', ['', '{', '[]', '{}', 'null', '{"answers": 7}', '{"answers": {"a": [1, "x", "y", false]}}',
    '{"answers": {"1": [1, "x"]}}', '{"answers": {}, "more": 1}', '\ud800'])
def test_a_damaged_state(h, tmp_path, text):
    kept = tmp_path/'kept.json'
    kept.write_text(text, errors='surrogatepass')
    with pytest.raises(ValueError, match='is not what a server has kept'): backend_of(h, kept)
    assert kept.read_text(errors='surrogatepass') == text

# --- over the network ---
def basic(text): return dict(Authorization='Basic ' + base64.b64encode(text.encode()).decode())
DOORS = [('GET', '/'), ('GET', '/health'), ('POST', '/setup'), ('POST', '/predict'), ('POST', '/webhook'), ('GET', '/versions'), ('POST', '/versions')]

@pytest.mark.parametrize('method, path', DOORS)
def test_every_door_asks_for_the_token(h, tmp_path, method, path):
    b = backend_of(h, tmp_path/'kept.json')
    body = dict(json=created(0) | SETUP | asked(1) | dict(project=dict(id=3, label_config=CONFIG))) if method == 'POST' else {}
    with TestClient(serving_app(b, token='Schlüssel'), 'http://localhost') as client:
        for head in ({}, basic('m2vaal:Schluessel'), basic('Schlüssel:'), dict(Authorization='Bearer x'), dict(Authorization='Basic x'),
            dict(Authorization='Basic Schlüssel'.encode()), dict(Authorization='Bearer Schlüssel'.encode('latin-1') + b'\xff'), dict(Authorization=b'\xff \xff')):
            answer = client.request(method, path, headers=head, **body)
            assert answer.status_code == 401 and answer.headers['WWW-Authenticate'] == 'Basic'
        assert b.state == State()
        assert client.request(method, path, headers=basic('anybody:Schlüssel'), **body).status_code == 200

def test_a_page_in_a_browser_cannot_tell_anything(h, tmp_path):
    b = backend_of(h, tmp_path/'kept.json')
    raw = json.dumps(created(0))
    with TestClient(serving_app(b), 'http://127.0.0.1:9090') as client:
        for kind in 'text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', '':
            assert client.post('/webhook', content=raw, headers={'Content-Type': kind}).status_code == 400
        assert client.options('/webhook', headers={'Origin': 'https://evil.org', 'Access-Control-Request-Method': 'POST'}).status_code == 405
        assert client.post('/webhook', json=created(0), headers=dict(host='evil.org:9090')).status_code == 400
        assert b.state == State()
        for host in 'localhost:9090', '127.0.0.1', '[::1]:9090':
            assert client.post('/webhook', json=created(0), headers=dict(host=host)).status_code == 200
    with TestClient(serving_app(b, token='sesame'), 'http://labels.example.org') as client:      # behind a proxy
        assert client.post('/webhook', json=created(1)).status_code == 401
        assert client.post('/webhook', json=created(1), headers=basic('m2vaal:sesame')).status_code == 200

@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost', '127.0.0.2', '127.255.255.254', '::1', '0:0:0:0:0:0:0:1'])
def test_where_it_listens_it_can_be_reached(h, tmp_path, host):
    "Without a token too, and still by no other name."
    assert is_own(host)
    with TestClient(serving_app(backend_of(h, tmp_path/'kept.json'), host=host), f'http://{in_address(host)}:9090') as client:
        for name, status in ((in_address(host), 200), ('127.0.0.1', 200), ('localhost', 200), ('[::1]', 200), ('evil.org', 400), ('127.0.0.3', 400)):
            assert client.get('/health', headers=dict(host=f'{name}:9090')).status_code == status

def test_a_body_may_be_so_large(h, tmp_path):
    raw = json.dumps(created(0)).encode()
    head = {'Content-Type': 'application/json'}
    for largest, status in ((len(raw) - 1, 413), (len(raw), 200), (len(raw) + 1, 200)):
        b = backend_of(h, tmp_path/f'{largest}.json')
        with TestClient(serving_app(b, largest=largest), 'http://localhost') as client:
            assert client.post('/webhook', content=raw, headers=head).status_code == status
            parts = (raw[i:i+10] for i in range(0, len(raw), 10))
            assert client.post('/webhook', content=parts, headers=head).status_code == status    # without a length
        assert len(b.state.answers) == (status == 200)

@pytest.mark.parametrize('path, body, says', [
    ('/predict', {}, 'must have tasks'), ('/predict', dict(tasks=[]), 'of which project'), ('/predict', dict(tasks=[1]), 'must have tasks'),
    ('/predict', asked(1) | dict(label_config='<View/>'), 'has 0 Choices'), ('/setup', {}, 'of which project'), ('/setup', dict(project='3.1'), 'is not XML'),
    ('/webhook', {}, 'what happened'), ('/webhook', dict(action='ANNOTATION_CREATED'), 'must have its annotation'),
    ('/webhook', created(0) | dict(project=None), 'of which project'), ('/webhook', created(0) | dict(task=dict(id=1)), 'must have tasks'),
    ('/webhook', created(0) | dict(annotation=dict(id=1, result=7)), 'must have a result'), ('/setup', [], 'JSON object')])
def test_what_is_wrong_is_said_in_a_sentence(h, tmp_path, path, body, says):
    b = backend_of(h, tmp_path/'kept.json')
    with TestClient(serving_app(b), 'http://localhost') as client:
        answer = client.post(path, json=body)
    assert answer.status_code == 400 and says in answer.json()['error'] and not b.state.answers

anything = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), lambda some:
    st.lists(some, max_size=3) | st.dictionaries(st.sampled_from(['id', 'data', 'image', 'path', 'result', 'value', 'choices', 'type', 'from_name', 'label_config']) | st.text(), some, max_size=4), max_leaves=8)

@given(path=st.sampled_from(['/setup', '/predict', '/webhook', '/versions']), key=st.sampled_from([*created(0), *asked(1), 'schema', 'annotations']),
       inner=st.sampled_from([None, 'id', 'data', 'result', 'label_config', 'was_cancelled']), value=anything)
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_makes_it_stumble(h, tmp_path_factory, path, key, inner, value):
    b = backend_of(h[:5], tmp_path_factory.mktemp('f')/'kept.json')
    b.row = {p: i for i,p in enumerate(PATHS[:5])}
    body = created(0) | asked(1) | SETUP | dict(project=dict(id=3, label_config=CONFIG), annotations=[dict(id=1)])
    body[key] = value if inner is None or not isinstance(body.get(key), dict) else body[key] | {inner: value}
    client = TestClient(serving_app(b), 'http://localhost')      # without its thread, so that errors are seen here
    assert client.post(path, content=json.dumps(body), headers={'Content-Type': 'application/json'}).status_code in (200, 400)

# --- asking Label Studio ---
class Pretended:
    "A Label Studio of a few lines, which may be down, or fail in the middle as one on SQLite does."
    def __init__(self, n):
        self.tasks = [task(i, annotations=[]) for i in range(n)]
        self.predictions, self.shown, self.fails, self.asked = [], None, [], []
        studio = self
        class Door(BaseHTTPRequestHandler):
            def do_GET(self):
                raw = self.rfile.read(int(self.headers.get('Content-Length', 0)))
                status, said = studio.answer(self.command, self.path, json.loads(raw) if raw else None)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(said).encode())
            do_POST = do_PATCH = do_DELETE = do_GET
            def log_message(self, *args): pass
        self.server = ThreadingHTTPServer(('127.0.0.1', 0), Door)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.known = LabelStudio(f'http://127.0.0.1:{self.server.server_port}/', 'a-key')

    def answer(self, method, path, body):
        self.asked.append((method, path))
        if self.fails and (method, path.split('/')[-1] or path.split('/')[-2]) == self.fails[0]: return 500, self.fails.pop(0)
        versions = {p['model_version'] for p in self.predictions}
        if 'export' in path: return 200, self.tasks
        if 'import' in path: self.predictions += body
        if method == 'PATCH': self.shown = body['model_version']
        if method == 'DELETE': self.predictions = [p for p in self.predictions if p['model_version'] != body['model_version']]
        if method == 'GET': return 200, {v: sum(p['model_version'] == v for p in self.predictions) for v in versions}
        return 200, {}

@pytest.fixture
def studio(monkeypatch):
    monkeypatch.setattr(module, 'LONGEST', .05)
    found = Pretended(20)
    yield found
    found.server.shutdown()
    found.server.server_close()

def shown(b, secs=30):
    end = time.monotonic() + secs
    while time.monotonic() < end:
        if b.idle.is_set() and b.model and b.shown == b.model.version: return b.model
        time.sleep(.01)
    pytest.fail('nothing was shown')

@pytest.mark.parametrize('fails', [[], [('GET', 'model-versions')], [('POST', 'predictions')], [('PATCH', '3')], [('DELETE', 'model-versions')],
    [('DELETE', 'model-versions')]*3, [('POST', 'predictions'), ('PATCH', '3'), ('DELETE', 'model-versions')]])
def test_the_next_tasks_are_shown_whatever_fails_in_between(h, tmp_path, studio, fails):
    studio.predictions = [dict(task=0, model_version='theirs')]
    with backend_of(h, tmp_path/'kept.json', Choosing(ahead=5), studio.known) as b:
        answer_setup(b, SETUP)
        shown(b)
        studio.fails += fails
        for i in range(4):
            answer_webhook(b, created(i))
            settled(b)
        model = shown(b)
    ours = [p for p in studio.predictions if p['model_version'] != 'theirs']
    assert [p['task'] for p in ours] == model.order[:5].tolist() and not studio.fails
    assert {p['model_version'] for p in ours} == {studio.shown} == {model.version}
    assert [p['score'] for p in ours] == sorted(p['score'] for p in ours) and len(studio.predictions) == 6
    assert set(model.order) == set(range(4, 20))        # only what there are tasks for

def test_what_was_answered_while_it_was_down(h, tmp_path, studio):
    kept = tmp_path/'kept.json'
    with backend_of(h, kept) as b:
        for i in range(3): answer_webhook(b, created(i))
        settled(b)
    for i in range(1, 6): studio.tasks[i]['annotations'] = [annotation(i, CLASSES[TRUTH[i]])]      # that of 0 is gone, 3 to 5 are new
    studio.tasks[6]['annotations'] = [annotation(6, 'cat', was_cancelled=True)]
    with backend_of(h, kept, studio=studio.known) as b: shown(b)
    assert labels(b) == {PATHS[i]: CLASSES[TRUTH[i]] for i in range(1, 6)}
    assert {a.image for a in read_state(tmp_path/'kept.1.bak').answers.values()} == set(PATHS[:3])

@pytest.mark.parametrize('left', [0, 1, 4, 20])
def test_a_smaller_export_deletes_nothing(h, tmp_path, studio, left):
    kept = tmp_path/'kept.json'
    with backend_of(h, kept) as b:
        for i in range(4): answer_webhook(b, created(i))
    for i in range(4): studio.tasks[i]['annotations'] = [annotation(i, CLASSES[TRUTH[i]])]
    before, studio.tasks[left:] = b.state, []
    with backend_of(h, kept, studio=studio.known) as b: assert len(shown(b).order) == max(0, left - 4)
    assert b.state == before == read_state(kept) and not list(tmp_path.glob('*.bak'))

def test_images_that_are_missing_here_keep_their_answers(h, tmp_path, studio):
    b = backend_of(h, tmp_path/'kept.json', studio=studio.known)
    for i in range(4): answer_webhook(b, created(i))
    for i in range(2, 4): studio.tasks[i]['annotations'] = [annotation(i, CLASSES[TRUTH[i]])]
    before = b.state
    b.row = {p: i for p,i in b.row.items() if i > 1}
    ask_all(b)
    assert b.state == before

@pytest.mark.parametrize('again', [1, 2])
def test_a_copy_is_made_before_answers_go(h, tmp_path, studio, again):
    "As after a reset of its database, which begins to count tasks at 1 again."
    b, said = backend_of(h, tmp_path/'kept.json', studio=studio.known), []
    b.say = said.append
    for n in range(1, again + 1):
        for i in range(4): answer_webhook(b, created(i))
        before = b.state
        ask_all(b)
        assert not b.state.answers and read_state(tmp_path/f'kept.{n}.bak') == before
        assert '4 answers are not in Label Studio any more' in said[-1] and f'kept.{n}.bak' in said[-1]
    studio.tasks = [task(10, annotations=[annotation(10, 'hen') | dict(id=100)])]
    answer_webhook(b, created(0))
    ask_all(b)                      # another image under the same number
    assert labels(b) == {'10.png': 'hen'} and len(list(tmp_path.glob('*.bak'))) == again + 1

def test_what_comes_and_goes_while_it_asks(h, tmp_path, studio, monkeypatch):
    b = backend_of(h, tmp_path/'kept.json', studio=studio.known)
    answer_webhook(b, created(0))
    def exported(*_):
        for i in (1, 2, 3): answer_webhook(b, created(i))
        answer_webhook(b, event('ANNOTATIONS_DELETED', annotations=[dict(id=101)]))
        answer_webhook(b, created(3, was_cancelled=True, action='ANNOTATION_UPDATED'))
        answer_webhook(b, created(5, 'hen', action='ANNOTATION_UPDATED'))
        answer_webhook(b, event('TASKS_DELETED', tasks=[dict(id=4)]))
        return [task(i, annotations=[annotation(i, 'cat')] if i in (0, 1, 3, 4, 5) else []) for i in range(20)]
    monkeypatch.setattr(module, 'all_tasks', exported)
    ask_all(b)
    assert labels(b) == {'00.png': 'cat', '02.png': CLASSES[TRUTH[2]], '05.png': 'hen'} and b.since is None
    assert not list(tmp_path.glob('*.bak'))

def test_another_interface_is_a_reason_to_ask_again(h, tmp_path, studio):
    "What was answered by a class that was not known is known now."
    studio.tasks[0]['annotations'] = [annotation(0, 'cow')]
    with backend_of(h, tmp_path/'kept.json', studio=studio.known) as b:
        answer_setup(b, SETUP)
        shown(b)
        assert labels(b) == {}
        answer_setup(b, SETUP | dict(schema=label_studio_config([*CLASSES, 'cow'])))
        settled(b)
    assert labels(b) == {'00.png': 'cow'}

def test_an_annotation_that_cannot_be_read_holds_nothing_up(h, tmp_path, studio):
    said = []
    studio.tasks[0]['annotations'] = [dict(id=1, result=[7]), annotation(0, 'cat')]
    studio.tasks[1]['annotations'] = [dict(id=2, result=7), annotation(1, 'dog')]
    with backend_of(h, tmp_path/'kept.json', studio=studio.known, said=said) as b:
        answer_setup(b, SETUP)
        assert len(shown(b).order) == 18
    assert labels(b) == {'00.png': 'cat', '01.png': 'dog'}
    assert [line for line in said if line.startswith('Annotation 2 of task 1 is passed over. An annotation must')]

@pytest.mark.parametrize('status', [400, 413, 500, 507])
def test_an_event_that_went_wrong_is_asked_for(h, tmp_path, studio, monkeypatch, status):
    b = backend_of(h, tmp_path/'kept.json', studio=studio.known)
    raw = json.dumps(created(0)).encode()
    sent = {400: raw[:-1], 413: raw + b' '}.get(status, raw)
    def full(*_): raise OSError(28, 'No space left on device')
    def odd(*_): raise RuntimeError('an odd one')
    with TestClient(serving_app(b, largest=len(raw)), 'http://localhost') as client:
        answer_setup(b, SETUP)
        shown(b)
        studio.tasks[0]['annotations'] = [annotation(0, 'cat')]
        with monkeypatch.context() as m:
            if status == 507: m.setattr(relearn, 'write_whole', full)
            if status == 500: m.setattr(module, 'news_of', odd)
            answer = client.post('/webhook', content=sent, headers={'Content-Type': 'application/json'})
            assert answer.status_code == status
        end = time.monotonic() + 30
        while not b.state.answers and time.monotonic() < end: time.sleep(.01)
    assert labels(b) == {'00.png': 'cat'}

def test_who_has_no_token_makes_it_ask_nothing(h, tmp_path, studio):
    b = backend_of(h, tmp_path/'kept.json', studio=studio.known)
    b.asks = False
    client = TestClient(serving_app(b, token='sesame'), 'http://localhost')
    assert client.post('/webhook', json=created(0)).status_code == 401 and not b.asks
    assert client.post('/webhook', json={}, headers=basic('m2vaal:sesame')).status_code == 400 and b.asks

@pytest.mark.parametrize('status', [301, 302, 303, 307, 308])
@pytest.mark.parametrize('body', [None, dict(model_version='m2vaal')])
def test_an_access_token_goes_to_one_server(studio, status, body):
    class Moved(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get('Content-Length', 0)))
            self.send_response(status)
            self.send_header('Location', f'{studio.known.at}/api/projects/3')
            self.end_headers()
        do_POST = do_GET
        def log_message(self, *args): pass
    with ThreadingHTTPServer(('127.0.0.1', 0), Moved) as moved:
        threading.Thread(target=moved.serve_forever, daemon=True).start()
        at = LabelStudio(f'http://127.0.0.1:{moved.server_port}', 'a-key')
        with pytest.raises(ValueError, match=f'it refers to {studio.known.at}; if that'): ask(at, '/api/projects/3', body)
        moved.shutdown()
    assert studio.asked == []

def test_an_export_may_take_long(studio):
    real = studio.answer
    def slow(*args):
        time.sleep(.5)
        return real(*args)
    studio.answer = slow
    with pytest.raises(ValueError, match='does not answer: timed out'): all_tasks(studio.known, 3, secs=.05)
    assert len(all_tasks(studio.known, 3)) == 20

@pytest.mark.parametrize('action', ['START_TRAINING', 'TASKS_CREATED'])
def test_a_reason_to_ask_again(h, tmp_path, studio, action):
    with backend_of(h, tmp_path/'kept.json', studio=studio.known) as b:
        answer_setup(b, SETUP)
        assert len(shown(b).order) == 20
        studio.tasks += [task(i, annotations=[annotation(i, 'cat')]) for i in (30, 31)] + [dict(id=99, data=dict(image='else.png'), annotations=[])]
        answer_webhook(b, event(action))
        settled(b)
        assert len(shown(b).order) == 20 and labels(b) == {'30.png': 'cat', '31.png': 'cat'}

def test_label_studio_is_down(h, tmp_path, studio):
    "The server answers all the same, and shows what it has as soon as that is possible."
    said, address = [], studio.server.server_address
    studio.server.shutdown()
    studio.server.server_close()
    with backend_of(h, tmp_path/'kept.json', studio=studio.known, said=said) as b:
        for i in range(3): answer_webhook(b, created(i))
        settled(b)
        assert answer_predict(b, asked(7))['results'][0]['result'] and b.shown is None
        assert any('does not answer' in line for line in said)
        back = ThreadingHTTPServer(address, studio.server.RequestHandlerClass)
        threading.Thread(target=back.serve_forever, daemon=True).start()
        studio.tasks[0]['annotations'] = [annotation(0, 'cat')]
        for i in (1, 2): studio.tasks[i]['annotations'] = [annotation(i, CLASSES[TRUTH[i]])]
        assert len(shown(b).order) == 17
        back.shutdown()
        back.server_close()

# --- a real process ---
class Process:
    "The command, as a shell starts it."
    def __init__(self, folder, *words):
        self.folder, self.words = folder, words
        self.opener = build_opener(ProxyHandler({}))
    def __enter__(self):
        code = 'from m2vaal_nb.cli import m2vaal_serve; m2vaal_serve()'
        self.p = subprocess.Popen([sys.executable, '-c', code, 'photos', '--embeddings', 'z.npz', '--port', '0', *self.words],
            cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for line in self.p.stdout:
            if found := re.search(r'http://\S+:\d+', line): break
        self.at = found[0]
        return self
    def __exit__(self, *_):
        self.p.kill()
        self.p.communicate()
    def post(self, where, body):
        request = Request(self.at + where, json.dumps(body).encode(), {'Content-Type': 'application/json'})
        end = time.monotonic() + 30
        while True:
            try:
                with self.opener.open(request, timeout=30) as answer: return json.loads(answer.read())
            except URLError:
                if time.monotonic() > end: raise
                time.sleep(.05)

@pytest.fixture
def photos(h, tmp_path):
    (tmp_path/'photos').mkdir()
    for path in PATHS: Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path/'photos'/path)
    np.savez(tmp_path/'z.npz', names=PATHS, embeddings=h)
    return tmp_path

@pytest.mark.parametrize('kind', ['.avif', '.HEIC'])
def test_what_it_says_at_the_start(photos, studio, monkeypatch, kind, h):
    "Images of all kinds that can be embedded are there; without an access token something is missing."
    monkeypatch.setattr('uvicorn.Server.run', lambda *_: None)
    names = [f'00{kind}', *PATHS[1:]]
    (photos/'photos'/PATHS[0]).rename(photos/'photos'/names[0])
    np.savez(photos/'z.npz', names=names, embeddings=h)
    for known in None, studio.known:
        said = []
        serve(photos/'photos', photos/'z.npz', port=0, studio=known, say=said.append)
        assert said[-1].startswith(f'{N} images, ') and ('never arrives' in said[0]) == (known is None)

@pytest.mark.skipif(sys.platform != 'linux', reason='elsewhere a machine has one such address')
def test_another_address_of_this_machine(photos):
    with Process(photos, '--host', '127.0.0.2') as p:
        assert p.at.startswith('http://127.0.0.2:') and p.post('/setup', SETUP)['model_version'].startswith('m2vaal-0-')

def test_killed_in_the_middle_and_started_again(photos, capsys):
    "Right after the answer that an annotation arrived, most likely in the middle of the training that follows."
    with Process(photos) as p:
        p.post('/setup', SETUP)
        for i in range(7): assert p.post('/webhook', created(i)) == dict(answers=i + 1)
        p.p.send_signal(signal.SIGKILL)
        p.p.wait()
    kept = photos/'z.labels.json'
    assert len(read_state(kept).answers) == 7
    with Process(photos) as p:
        again = p.post('/predict', asked(*range(N)))
        with pytest.raises(ValueError, match='another process'), module.only_writer(kept): pass
        with chdir(photos), pytest.raises(SystemExit, match='1'): m2vaal_serve('photos', 'z.npz', port='0')
        assert 'another process' in capsys.readouterr().err
        p.p.send_signal(signal.SIGINT)
        _, said = p.p.communicate(timeout=30)
        assert p.p.returncode == 130 and said == 'm2vaal_serve: interrupted. What arrived is kept: the same command goes on.\n'
    as_read = read_embeddings(photos/'z.npz').h_N_D
    assert again == answer_predict(backend_of(as_read, kept), asked(*range(N)))

@pytest.mark.parametrize('words, says', [
    (dict(host='0.0.0.0'), 'needs a token'), (dict(method='vaal'), 'reads images, not features'), (dict(method='vall'), 'Unknown method'),
    (dict(ahead='0'), '`ahead` is 0'), (dict(label_studio='http://127.0.0.1:1'), 'needs an access token'), (dict(port='x'), 'not a whole number'),
    (dict(embeddings='none.npz'), 'no file none.npz'), (dict(images='none'), 'no folder none'), (dict(port='99999'), 'Cannot listen')])
def test_mistakes_cost_a_sentence(photos, capsys, monkeypatch, words, says):
    monkeypatch.delenv('LABEL_STUDIO_API_KEY', raising=False)
    monkeypatch.delenv('M2VAAL_TOKEN', raising=False)
    with chdir(photos), pytest.raises(SystemExit, match='1'): m2vaal_serve(**dict(images='photos', embeddings='z.npz') | words)
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and says in said and not list(photos.glob('*.json'))

def test_a_short_name_means_the_head_on_features(h):
    from m2vaal_nb.own_images.relearn import Choosing, checked_choosing, fitted
    y_N = np.full(len(h), -1)
    y_N[:6] = np.arange(6) % len(CLASSES)
    short, whole = (fitted(h, y_N, Control("label", "image", CLASSES), checked_choosing(Choosing(name, 5))) for name in ('margin', 'linear_margin'))
    assert (short.order == whole.order).all()
