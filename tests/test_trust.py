"How much to trust the classifier: calibration, widths, and the rivals that were added after the verdict."
from dataclasses import replace
import numpy as np, pandas as pd, pytest, torch
from conftest import ROOT
from m2vaal_nb.beyond import cover, trust
from m2vaal_nb.beyond.feature_learners import PENALTY, fit_head
from m2vaal_nb.beyond.strategies import max_herding, uherding
from m2vaal_nb.data import PoolView
from m2vaal_nb.experiments import METHODS, plan
from m2vaal_nb.samplers import SAMPLERS

def made_up(n_L, n_U=60, C=4, seed=0):
    "A view of features around as many centres as there are classes."
    g = np.random.default_rng(seed)
    centre = g.standard_normal((C, 6))
    def some(n):
        y = g.integers(0, C, n)
        z = centre[y] + .8*g.standard_normal((n, 6))
        return torch.from_numpy(z/np.linalg.norm(z, axis=1, keepdims=True)).float(), y
    (z_U, _), (z_L, y_L) = some(n_U), some(n_L)
    p = fit_head(z_L, y_L, C, PENALTY)(z_U)
    return PoolView(np.arange(n_U), seed, p, z_U, z_L_D=z_L, y_L=y_L)

@pytest.mark.parametrize('bins', [1, 2, 15])
@pytest.mark.parametrize('n', [1, 2, 15, 200])
def test_ece_is_a_mean_over_bins(n, bins):
    g = np.random.default_rng(n)
    p, y = g.dirichlet([.3]*5, n), g.integers(0, 5, n)
    sure, right, want = p.max(1), p.argmax(1) == y, 0
    for b in range(bins):
        there = (sure*bins >= b) & ((sure*bins < b + 1) | (b == bins - 1))
        if there.any(): want += there.mean()*abs(right[there].mean() - sure[there].mean())
    assert trust.ece(p, y, bins) == pytest.approx(want)

def test_ece_of_certain_classes():
    sure = torch.eye(3)
    assert trust.ece(sure, [0, 1, 2]) == 0 and trust.ece(sure, [1, 2, 0]) == 1

@pytest.mark.parametrize('tau', [.1, 1., 10.])
def test_a_temperature_divides_logits_and_leaves_certainty(tau):
    logits = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(trust.at_temperature(logits.softmax(-1), tau), (logits/tau).softmax(-1), atol=1e-5)
    assert torch.equal(trust.at_temperature(torch.eye(4), tau), torch.eye(4))

def test_calibrating_takes_the_best_of_all_temperatures():
    view = made_up(100)
    order = np.random.default_rng(3).permutation(100)
    held, rest = order[:20], order[20:]
    p = fit_head(view.z_L_D[rest], view.y_L[rest], 4, PENALTY)(view.z_L_D[held])
    errors = [trust.ece(trust.at_temperature(p, tau), view.y_L[held]) for tau in trust.TEMPERATURES]
    tau = trust.calibrating(view.z_L_D, view.y_L, 4, seed=3)
    assert errors[list(trust.TEMPERATURES).index(tau)] == min(errors)
    assert trust.calibrating(view.z_L_D, view.y_L, 4, seed=3) == tau

@pytest.mark.parametrize('n, asks', [(0, False), (1, False), (2, False), (3, True), (8, True)])
def test_calibrating_with_few_labels(n, asks, monkeypatch):
    view, fits = made_up(8), []
    monkeypatch.setattr(trust, 'fit_head', lambda *args: fits.append(1) or fit_head(*args))
    assert .1 <= trust.calibrating(view.z_L_D[:n], view.y_L[:n], 4) <= 10
    assert bool(fits) == asks

@pytest.mark.parametrize('n', [2, 3, 50, 400])
@pytest.mark.parametrize('numbers', [400, 5_000, 1 << 22])
def test_the_nearest_pair_is_that_of_all_pairs(n, numbers, monkeypatch):
    monkeypatch.setattr(cover, 'PIECE', numbers)              # rows are taken in pieces of any size
    z = torch.randn(n, 5, generator=torch.Generator().manual_seed(n)).double()
    assert trust.nearest_pair(z) == pytest.approx(torch.pdist(z).min().item(), rel=1e-9)
    assert trust.nearest_pair(torch.cat([z, z])) == pytest.approx(torch.pdist(z).min().item(), rel=1e-9)

def test_no_two_rows_that_differ():
    z = torch.ones(5, 3)
    for n in 0, 1, 5: assert trust.nearest_pair(z[:n]) == cover.SIGMA

@pytest.mark.parametrize('sampler', [*trust.LATER])
@pytest.mark.parametrize('n_L', [0, 1, 2, 50, 51])
@pytest.mark.parametrize('budget', [1, 50, 60])
def test_rivals_pick_rows_once_and_the_same_ones_again(sampler, n_L, budget):
    view = made_up(n_L)
    picks = SAMPLERS[sampler](view, budget)
    assert len(set(picks)) == budget and set(picks) <= set(view.ids)
    assert np.array_equal(picks, SAMPLERS[sampler](view, budget))

@pytest.mark.parametrize('budget, n_L, first', [(50, 50, True), (50, 100, False), (64, 500, True), (64, 564, False), (28, 1972, False)])
def test_the_first_query_covers(budget, n_L, first):
    view = made_up(n_L, 100)
    rule = max_herding if first else uherding
    assert np.array_equal(trust.max_then_uherding(view, budget), rule(view, budget))

@pytest.mark.parametrize('budget, n_L', [(50, 49), (64, 499), (10, 100)])
def test_with_fewer_labels_than_the_starts_have_the_query_is_the_first(budget, n_L):
    view = made_up(n_L, 100)
    assert trust.query_number(view, budget) == 0
    assert np.array_equal(trust.max_then_uherding(view, budget), max_herding(view, budget))

@pytest.mark.parametrize('known, covers', [((0, 1, 2), True), ((0, 1, 2, 3), False), ((), True)])
def test_cover_while_a_class_has_no_label(known, covers):
    view = made_up(60)
    there = np.isin(view.y_L, known)
    view = replace(view, z_L_D=view.z_L_D[there], y_L=view.y_L[there])
    rule = max_herding if covers else uherding
    assert np.array_equal(trust.max_until_seen(view, 9), rule(view, 9))

def test_the_rivals_start_where_the_others_started():
    for start in '2b', '4':
        one, other = (plan(f'{name}_{start}', ['linear_uherding'], [120])[0] for name in ('learned', 'trust'))
        assert one.protocol == other.protocol
    assert all(METHODS[f'linear_{s}'].sampler == s for s in trust.LATER)

def test_logged_rounds_are_asked_again_as_they_were():
    table = pd.read_csv(ROOT/'results/trust.csv')
    row = table.query("experiment == 'learned_4' and method == 'linear_margin' and seed == 121").iloc[4]
    again, = trust.what_it_said(ROOT/'results/learned_4/linear_margin-121.jsonl', 4)
    assert again['n_labelled'] == row.n_labelled and again['auc'] == pytest.approx(row.auc, abs=1e-6)

def test_a_head_that_knows_nothing_is_cooled_and_one_that_is_modest_is_not():
    g = np.random.default_rng(0)
    noise = g.standard_normal((100, 40))          # enough features to learn labels by heart
    assert trust.calibrating(noise, g.integers(0, 4, 100), 4) > 2
    apart = np.eye(4)[np.arange(400) % 4] + .01*g.standard_normal((400, 4))
    assert trust.calibrating(apart, np.arange(400) % 4, 4) <= 1
