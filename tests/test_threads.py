"Whoever has nets compute, it is on one thread, and the caller's threads are as they were."
from dataclasses import replace
import numpy as np, pytest, torch
from torch import nn
from m2vaal_nb.experiments import protocol_for
from m2vaal_nb.loop import Job, run
from m2vaal_nb.own_images.accuracy import predictions
from m2vaal_nb.own_images.query import known_pool, next_images
from m2vaal_nb.paper.revisit import revisit
from m2vaal_nb.paper.why import gradient_cosines, latent_structure

@pytest.fixture
def seen(monkeypatch):
    "On how many threads each convolution ran; the caller has three."
    found, forward, before = [], nn.Conv2d.forward, torch.get_num_threads()
    def watched(self, x):
        found.append(torch.get_num_threads())
        return forward(self, x)
    monkeypatch.setattr(nn.Conv2d, 'forward', watched)
    torch.set_num_threads(3)
    yield found
    torch.set_num_threads(before)

@pytest.fixture
def log(few, tiny, tmp_path):
    job = Job(protocol_for(tiny, 'm2_vaal'), 'm2_vaal', 0)
    next(run(job, tmp_path, 'cpu', few))
    return job.log(tmp_path)

@pytest.fixture
def pool(few):
    "Forty images, half of them with a label."
    y = np.where(np.arange(40) < 20, few.y[:40], -1)
    return known_pool(few.x[:40], y, few.classes)

DOORS = {
    'next_images': lambda r: next_images(r('pool'), 5, 'm2_vaal', steps=2, batch=8),
    'predictions': lambda r: predictions(r('pool'), replace(r('tiny'), batch=8), 0, np.arange(10), np.arange(10, 20)),
    'revisit': lambda r: revisit(r('log'), 0, 'cpu', r('few')),
    'gradient_cosines': lambda r: gradient_cosines(r('log'), 0, 1, r('few')),
    'latent_structure': lambda r: latent_structure(r('log'), 0, 200, r('few'))}

@pytest.mark.parametrize('door', DOORS)
def test_nets_compute_on_one_thread(door, request, seen):
    DOORS[door](request.getfixturevalue)
    assert set(seen) == {1} and torch.get_num_threads() == 3

def test_logistic_regressions_and_k_means_compute_on_one_thread(monkeypatch):
    "NumPy's, SciPy's and scikit-learn's pools too; the caller has as many as before."
    import sklearn.cluster, sklearn.linear_model
    from threadpoolctl import threadpool_info, threadpool_limits
    from m2vaal_nb.beyond.feature_learners import fit_head, tell_labelled
    from m2vaal_nb.beyond.strategies import k_means
    found = []
    def watch(cls):
        fit = cls.fit
        def watched(self, *args, **kw):
            found.append({pool['num_threads'] for pool in threadpool_info()})
            return fit(self, *args, **kw)
        monkeypatch.setattr(cls, 'fit', watched)
    watch(sklearn.linear_model.LogisticRegression)
    watch(sklearn.cluster.MiniBatchKMeans)
    z = torch.nn.functional.normalize(torch.randn(60, 8, generator=torch.Generator().manual_seed(0)))
    with threadpool_limits(3):
        before = [pool['num_threads'] for pool in threadpool_info()]
        fit_head(z, np.arange(60) % 3, 3)
        tell_labelled(z, z[:20])
        k_means(z, z[:20], 4, 0)
        assert [pool['num_threads'] for pool in threadpool_info()] == before and 3 in before
    assert len(found) >= 4 and all(pools == {1} for pools in found)
