"""A real Label Studio: our tasks and interface go in, people label over its API, every export is read back,
and our server answers it while they label.
Only `make test-labelstudio` comes here. With $KEEP_EXPORTS the exports become what `test_label_studio.py` reads."""
import json, os, signal, socket, subprocess, sys, time
from contextlib import contextmanager
from types import SimpleNamespace
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener
import numpy as np, pandas as pd, pytest
from PIL import Image
from conftest import ROOT
from m2vaal_nb.data import load_dataset
from m2vaal_nb.beyond.representation import LEARNED
from m2vaal_nb.interop.label_studio import label_studio_config, label_studio_tasks, served_at
from test_label_studio import ENDS, KEPT, SCENES, check_scene

pytestmark = pytest.mark.labelstudio
STUDIO = ROOT/'.venv-labelstudio/bin/label-studio'
ME = dict(username='ann@example.org', password='only-for-this-test', user_token='0123456789abcdef'*2 + '01234567')
NEAR = dict(ML_BLOCK_LOCAL_IP='false', SSRF_PROTECTION_ENABLED='false') # it may ask and tell a server on its own machine
QUIET = dict(COLLECT_ANALYTICS='false', LATEST_VERSION_CHECK='false', SENTRY_DSN='', FRONTEND_SENTRY_DSN='')

class Studio:
    "What a labeller does in Label Studio, over its API."
    def __init__(self, port):
        self.at, self.opener = f'http://127.0.0.1:{port}', build_opener(ProxyHandler({}))
        self.knows = f"Token {ME['user_token']}"

    def ask(self, where, raw=None, kind='application/json', secs=60, method=None):
        "The bytes of an answer; what is given is posted."
        head = {'Authorization': self.knows, 'Content-Type': kind}
        with self.opener.open(Request(self.at + where, raw, head, method=method), timeout=secs) as answer: return answer.read()

    def post(self, where, method='POST', **data): return json.loads(self.ask(where, json.dumps(data).encode(), method=method))

    def get(self, where): return json.loads(self.ask(where))

    def project(self, title, config): return self.post('/api/projects', title=title, label_config=config)['id']

    def add(self, project, tasks):
        "The numbers of imported tasks."
        answer = self.ask(f'/api/projects/{project}/import?return_task_ids=true', json.dumps(tasks).encode())
        return json.loads(answer)['task_ids']

    def upload(self, project, names, raw):
        "The numbers of the tasks of one image, uploaded under many names as a browser does."
        head = '--cut\r\nContent-Disposition: form-data; name="{0}"; filename="{0}"\r\nContent-Type: image/png\r\n\r\n'
        parts = [head.format(name).encode() + raw + b'\r\n' for name in names]
        kind = 'multipart/form-data; boundary=cut'
        self.ask(f'/api/projects/{project}/import', b''.join(parts) + b'--cut--\r\n', kind)
        tasks = json.loads(self.ask(f'/api/tasks?project={project}&page_size=100'))['tasks']
        return sorted(t['id'] for t in tasks)

    def label(self, task, *answers, by=1, **more):
        "One annotation; an answer is (control, kind, value)."
        result = [dict(id=f'r{i}', from_name=name, to_name='image', type=kind, value=value)
                  for i,(name,kind,value) in enumerate(answers)]
        return self.post(f'/api/tasks/{task}/annotations/', result=result, completed_by=by, lead_time=1, **more)

    def draft(self, task, *answers):
        result = [dict(id='r', from_name=name, to_name='image', type=kind, value=value) for name,kind,value in answers]
        return self.post(f'/api/tasks/{task}/drafts', result=result, lead_time=1)

    def user(self, name): return self.post('/api/users/', email=f'{name}@example.org', username=name)['id']

def choice(*names, control='label'): return control, 'choices', dict(choices=list(names))
def leaf(*steps): return 'label', 'taxonomy', dict(taxonomy=[list(steps)])

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

@pytest.fixture(scope='module')
def studio(tmp_path_factory):
    "A server on the loopback; its database and the images are in a temporary folder."
    assert STUDIO.exists(), 'Label Studio is not installed here: make test-labelstudio'
    home = tmp_path_factory.mktemp('studio')
    port = free_port()
    own = {k: v for k,v in os.environ.items() if k in ('PATH', 'LANG', 'LC_ALL')} | QUIET | NEAR
    own |= dict(HOME=str(home), LABEL_STUDIO_BASE_DATA_DIR=str(home/'data'),
                LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED='true', LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=str(home))
    words = f'start --no-browser --internal-host 127.0.0.1 --port {port} --enable-legacy-api-token'.split()
    words += [o for k,v in ME.items() for o in (f'--{k.replace("_", "-")}', v)]
    with (home/'log').open('wb') as log:
        server = subprocess.Popen([STUDIO, *words], cwd=home, env=own, stdout=log, stderr=log)
    studio = Studio(port)
    studio.home = home
    try:
        wait_for(studio, server, home/'log')
        studio.folder, studio.bob, studio.cyd = home/'photos', studio.user('bob'), studio.user('cyd')
        yield studio
    finally:
        server.terminate()
        try: server.wait(20)
        except subprocess.TimeoutExpired: server.kill(); server.wait()

def wait_for(studio, server, log, secs=600):
    "Its first start makes a database: a minute or two, longer where much else runs."
    end = time.monotonic() + secs
    while time.monotonic() < end and server.poll() is None:
        try: return studio.ask('/health', secs=5)
        except (URLError, OSError): time.sleep(1)
    pytest.fail('Label Studio did not start:\n' + log.read_text(errors='replace')[-3000:])

def check_exports(studio, project, name, tmp_path):
    "Every format of a project is read as its scene says."
    for kind,end in ENDS.items():
        raw = studio.ask(f'/api/projects/{project}/export?exportType={kind}&download_all_tasks=true')
        (tmp_path/f'{name}{end}').write_bytes(raw)
        if os.environ.get('KEEP_EXPORTS'): (KEPT/f'{name}{end}').write_bytes(raw)
        check_scene(tmp_path/f'{name}{end}', name)

def test_our_tasks_come_back(studio, tmp_path):
    names = SCENES['photos'].paths
    for i,name in enumerate(names):
        (studio.folder/name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 20*i, np.uint8)).save(studio.folder/name)
    project = studio.project('Photos', label_studio_config(['cat', 'dog', 'hen & co', 'Käse']))
    studio.post('/api/storages/localfiles', project=project, path=str(studio.folder), use_blob_urls=True)
    chosen = pd.DataFrame(dict(image=names, predicted='cat', probability=.5))
    tasks = label_studio_tasks(chosen, 'margin', served_at(studio.folder))
    for task,name in zip(tasks, names): assert studio.ask(task['data']['image']) == (studio.folder/name).read_bytes()
    plain, twice, skipped, truth, open_, empty, draft, most, _, own = studio.add(project, tasks)
    studio.label(plain, choice('cat'))
    studio.label(twice, choice('dog'), choice('dog'))
    studio.label(skipped, was_cancelled=True)
    studio.label(truth, choice('cat'))
    studio.label(truth, choice('dog'), by=studio.bob, ground_truth=True)
    studio.label(open_, choice('cat'))
    studio.label(open_, choice('dog'), by=studio.bob)
    studio.label(empty)
    studio.draft(draft, choice('cat'))
    for by in 1, studio.bob: studio.label(most, choice('hen & co'), by=by)
    studio.label(most, choice('Käse'), by=studio.cyd)
    studio.label(own, choice('Käse'))
    check_exports(studio, project, 'photos', tmp_path)

def test_the_root_itself_is_not_served(studio):
    "So `served_at` begins with the folder's name. When this fails, Label Studio has become more generous."
    project = studio.project('Root', label_studio_config(['cat', 'dog']))
    with pytest.raises(URLError, match='400'):
        studio.post('/api/storages/localfiles', project=project, path=str(studio.folder.parent), use_blob_urls=True)

IMAGE = '<Image name="image" value="$image"/>'
BOTH = '<Choice value="cat"/><Choice value="dog"/>'

def test_uploads_in_label_studios_own_template(studio, tmp_path):
    project = studio.project('Uploads', f'<View>{IMAGE}<Choices name="choice" toName="image">{BOTH}</Choices></View>')
    raw = (studio.folder/SCENES['photos'].paths[0]).read_bytes()
    ids = studio.upload(project, SCENES['uploads'].paths, raw)
    for i,task in enumerate(ids): studio.label(task, choice('dog' if i else 'cat', control='choice'))
    check_exports(studio, project, 'uploads', tmp_path)

def test_a_taxonomy(studio, tmp_path):
    control = f'<Taxonomy name="label" toName="image"><Choice value="animal">{BOTH}</Choice></Taxonomy>'
    project = studio.project('Taxonomy', f'<View>{IMAGE}{control}</View>')
    images = 'https://example.org/photos/a%201.png', 's3://mine/photos/b.png'
    first, second = studio.add(project, [dict(image=image) for image in images])
    studio.label(first, leaf('animal', 'cat'))
    studio.label(second, leaf('animal', 'dog'))
    check_exports(studio, project, 'taxonomy', tmp_path)

def test_other_controls(studio, tmp_path):
    controls = f'''<Choices name="choice" toName="image">{BOTH}</Choices><Rating name="stars" toName="image"/>
        <TextArea name="note" toName="image"/>'''
    project = studio.project('Controls', f'<View>{IMAGE}{controls}</View>')
    first, second = studio.add(project, [dict(image='a.png'), dict(image='b.png')])
    extra = ('stars', 'rating', dict(rating=3)), ('note', 'textarea', dict(text=['nice']))
    studio.label(first, choice('cat', control='choice'), *extra)
    studio.label(second, choice('dog', control='choice'))
    check_exports(studio, project, 'controls', tmp_path)

def test_boxes(studio, tmp_path):
    control = '<RectangleLabels name="label" toName="image"><Label value="cat"/></RectangleLabels>'
    project = studio.project('Boxes', f'<View>{IMAGE}{control}</View>')
    task, = studio.add(project, [dict(image='a.png')])
    box = dict(x=1, y=1, width=5, height=5, rotation=0, rectanglelabels=['cat'])
    studio.label(task, ('label', 'rectanglelabels', box))
    check_exports(studio, project, 'boxes', tmp_path)

def test_several_choices(studio, tmp_path):
    control = f'<Choices name="label" toName="image" choice="multiple">{BOTH}</Choices>'
    project = studio.project('Several', f'<View>{IMAGE}{control}</View>')
    task, = studio.add(project, [dict(image='a.png')])
    studio.label(task, choice('cat', 'dog'))
    check_exports(studio, project, 'several', tmp_path)

# --- our server, while people label ---
class Served(Studio):
    "`m2vaal_serve`, started as in a shell."
    def __init__(self, home, *words, token=''):
        port = free_port()
        super().__init__(port)
        self.knows = f'Bearer {token}'
        self.home, self.words, self.log = home, [*words, '--port', str(port)], home/'serve.log'
        self.start()

    def start(self):
        own = {k: v for k,v in os.environ.items() if 'proxy' not in k.lower()} | dict(PYTHONPATH=str(ROOT))
        code = 'from m2vaal_nb.cli import m2vaal_serve; m2vaal_serve()'
        with self.log.open('ab') as log:
            self.server = subprocess.Popen([sys.executable, '-c', code, *self.words], cwd=self.home, env=own, stdout=log, stderr=log)
        wait_for(self, self.server, self.log, secs=120)

    def kill(self):
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()

    def settled(self, answers, secs=60):
        "Its health once it has learned from so many annotations, and shown what it learned."
        end = time.monotonic() + secs
        while time.monotonic() < end:
            now = self.get('/health')
            if now['answers'] == answers and not now['is_training'] and now['shown'] in (now['model_version'], None): return now
            time.sleep(.1)
        pytest.fail(f'After {secs} s it stands at {now}:\n' + self.log.read_text()[-3000:])

@contextmanager
def serving(*args, **kwargs):
    served = Served(*args, **kwargs)
    try: yield served
    finally: served.kill()

@pytest.fixture(scope='module')
def clothes(studio):
    "600 images of Fashion-MNIST with learned features, in a folder that Label Studio serves: 100 for people, 500 held out."
    images, features = load_dataset('fashion_mnist'), load_dataset(LEARNED['fashion_mnist_contrastive_12_0'])
    rows = np.random.default_rng(0).choice(len(images.x), 600, replace=False)
    names = [f'{i:03}.png' for i in range(600)]
    folder = studio.home/'clothes'
    folder.mkdir()
    for name,row in zip(names, rows): Image.fromarray(images.x[row, 0].numpy()).save(folder/name)
    np.savez(studio.home/'clothes.npz', names=names, embeddings=features.x[rows])
    truth = [images.classes[c] for c in np.asarray(images.y)[rows]]
    config = label_studio_config(images.classes)
    return SimpleNamespace(names=names, truth=dict(zip(names, truth)), config=config, served=served_at(folder))

def new_project(studio, clothes, title, n):
    "A project with tasks for the first images, and their numbers."
    project = studio.project(title, clothes.config)
    chosen = pd.DataFrame(dict(image=clothes.names[:n], predicted=None, probability=None))
    return project, studio.add(project, label_studio_tasks(chosen, 'none', clothes.served))

def listed(studio, project):
    "The tasks without a label, as the list shows them that is ordered by prediction score."
    query = quote(json.dumps(dict(ordering=['tasks:predictions_score'])))
    tasks = studio.get(f'/api/tasks?project={project}&page_size=1000&fields=all&query={query}')['tasks']
    return [t for t in tasks if not t['is_labeled']]

def guessed(predictions): return [p['result'][0]['value']['choices'][0] for p in predictions]

def test_five_rounds_without_files(studio, clothes):
    """Twenty annotations a round, those that come first in the list; the server is killed in the middle, and for a while not there.
    What it then predicts of 500 images that nobody labelled is at least 15 points above naming the largest class."""
    project, _ = new_project(studio, clothes, 'Clothes', 100)
    key = studio.post('/api/token/')['token']       # a personal one
    words = 'clothes', '--embeddings', 'clothes.npz', '--ahead', '20', '--label-studio', studio.at, '--api-key', key
    held_out, seconds = clothes.names[100:], []
    def label(tasks):
        for task in tasks: studio.label(task['id'], choice(clothes.truth[task['data']['path']]))
    with serving(studio.home, *words) as served:
        studio.post('/api/ml', project=project, url=served.at, title='m2vaal')
        for n in range(0, 100, 20):
            now, tasks = served.settled(n), listed(studio, project)
            scores = [t['predictions_score'] for t in tasks[:20]]
            assert len(tasks) == 100 - n and scores[0] == 0 and scores == sorted(scores)
            versions = {v for t in tasks for v in (t['predictions_model_versions'] or '').split(',')}
            assert versions - {''} == {now['model_version']}
            label(tasks[:15])
            if n == 40: served.kill()
            label(tasks[15:20])
            began = time.monotonic()
            if n == 40: served.start()
            served.settled(n + 20)
            seconds.append(round(time.monotonic() - began, 1))
        tasks = [dict(id=0, data=dict(image=clothes.served + name)) for name in held_out]
        answer = served.post('/predict', project=f'{project}.0', label_config=clothes.config, tasks=tasks)
    truth = pd.Series([clothes.truth[name] for name in held_out])
    accuracy, largest = (truth == guessed(answer['results'])).mean(), truth.value_counts().iloc[0]/500
    print(f'accuracy {accuracy:.1%}, naming the largest class {largest:.1%}; seconds from the last annotation to a new order: {seconds}')
    assert accuracy >= largest + .15

def test_without_an_access_token(studio, clothes):
    "Label Studio alone asks and tells, with our token; a task that is opened has the newest prediction."
    project, ids = new_project(studio, clothes, 'Pulled', 30)
    words = 'clothes', '--embeddings', 'clothes.npz', '--state', 'pulled.json', '--token', 'open-sesame'
    with serving(studio.home, *words, token='open-sesame') as served:
        with pytest.raises(URLError, match='400'): studio.post('/api/ml', project=project, url=served.at, title='m2vaal')
        studio.post('/api/ml', project=project, url=served.at.replace('//', '//m2vaal:open-sesame@'), title='m2vaal')
        said = [studio.label(i, choice(clothes.truth[name])) for i,name in zip(ids[:12], clothes.names)]
        version = served.settled(12)['model_version']
        opened = studio.post(f'/api/dm/actions?id=next_task&project={project}')
        prediction, = opened['predictions']
        assert opened['id'] == ids[12] and prediction['model_version'] == version and guessed([prediction])
        studio.ask(f"/api/annotations/{said[0]['id']}", method='DELETE')
        studio.post(f"/api/annotations/{said[1]['id']}", 'PATCH', was_cancelled=True)
        version = served.settled(10)['model_version']
        studio.post(f'/api/dm/actions?id=retrieve_tasks_predictions&project={project}')
        studio.post(f'/api/projects/{project}', 'PATCH', model_version=version)
        tasks = listed(studio, project)
        assert len(tasks) == 20 and all(t['predictions_score'] is not None for t in tasks)
        asked = [dict(id=t['id'], data=t['data']) for t in tasks]
        answer = served.post('/predict', project=f'{project}.0', label_config=clothes.config, tasks=asked)
    scores = [p['score'] for p in answer['results']]
    assert scores == sorted(scores) == [t['predictions_score'] for t in tasks] and answer['model_version'] == version
