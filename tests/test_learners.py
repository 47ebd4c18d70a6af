"One contract for every learner, and for a run of each."
import json, subprocess, sys
from dataclasses import asdict, replace
import numpy as np, pytest, torch
from conftest import PAPERS_LEARNERS, PAPERS_METHODS
from m2vaal_nb.foundations.chance import rng
from m2vaal_nb.experiments import METHODS, protocol_for
from m2vaal_nb.loop import Job, Training, accuracy, adam, draw, fresh_nets, predict, run, start_pool, train, train_round, train_step, view_pool
from m2vaal_nb.losses import LEARNERS, warmup
from m2vaal_nb.losses import TERMS, elbo_terms
from m2vaal_nb.models import NETS
from m2vaal_nb.paper.fig3 import reconstruct
from m2vaal_nb.scale.lockstep import train_lockstep

every = pytest.mark.parametrize('name', PAPERS_LEARNERS)
NAMES = dict(classifier='T', vaal='TEGD', ta_vaal='TEGDR', m2_vaal='TEGD', m2_vaal_no_adv='TEGD', m2='TEG')
LETTERS = dict(zip('TEGDR', NETS))

@pytest.fixture
def pool(few, tiny): return start_pool(few, tiny, 0)[0]

def first(pool, p, round=0): return Training(pool, p, seed=0, round=round)

def weights(nets): return {n: torch.cat([w.detach().flatten().clone() for w in net.parameters()]) for n,net in nets.items()}

@every
def test_loss_falls(name, pool, tiny):
    p, learner = replace(tiny, steps=60, batch=20), LEARNERS[name]
    nets, terms = fresh_nets(learner, first(pool, p)), {**TERMS, **elbo_terms(p.elbo)}
    opts, values = [adam([w for n in phase.trains for w in nets[n].parameters()], p) for phase in learner.phases], []
    for b in draw(first(pool, p)).batches(pool.x): values.append(train_step(nets, learner, opts, p, terms, b))
    for term in ('classification', 'reconstruction', 'marginal_reconstruction'):
        if term in values[0]: assert np.mean([v[term] for v in values[-5:]]) < .8*values[0][term]

@every
def test_a_layout_changes_last_digits_only(name, pool, tiny):
    "Alone and in lockstep; and it gives the same again."
    def trained(layout): return train_round(Training(pool, replace(tiny, steps=2, learner=name, layout=layout), 0, 0))
    (a, values), (b, others), (c, _) = map(trained, ('contiguous', 'channels_last', 'channels_last'))
    assert others == pytest.approx(values, rel=1e-3)
    assert all(torch.equal(v, weights(c)[n]) for n,v in weights(b).items())
    assert b['classifier'].conv2.weight.is_contiguous(memory_format=torch.channels_last)
    (_, together), = train_lockstep([Training(pool, replace(tiny, steps=2, learner=name, layout='channels_last'), 0, 0)])
    assert together == pytest.approx(values, rel=1e-3)

@pytest.mark.parametrize('decay, warmup_steps', [(0., 0), (.2, 0), (.4, 3), (1., 0)])
def test_the_rate_falls_as_a_scheduler_of_pytorchs_lets_it(decay, warmup_steps, pool, tiny):
    "Against LambdaLR and a loop of our own; in lockstep it falls alike."
    p = replace(tiny, steps=10, learner='vaal', decay=decay, warmup_steps=warmup_steps)
    t = Training(pool, p, 0, 0)
    seen, learner, d = [], t.learner, draw(t)
    nets, (ours, losses) = fresh_nets(learner, t).train(), train_round(t)
    terms = {**TERMS, **elbo_terms(p.elbo)}
    feed = list(d.batches(pool.x, warmup_steps))
    for stage,batches in ((warmup(learner), feed[:warmup_steps]), (learner, feed[warmup_steps:])):
        opts = [adam([w for n in phase.trains for w in nets[n].parameters()], p) for phase in stage.phases]
        after = p.steps - p.steps*decay
        def falls(step): return 1. if step <= after or stage is not learner else (p.steps - step)/(p.steps*decay)
        rates = [torch.optim.lr_scheduler.LambdaLR(opt, falls) for opt in opts]
        for batch in batches:
            train_step(nets, stage, opts, p, terms, batch)
            for rate in rates: seen.append(rate.get_last_lr()[0]); rate.step()
    for a,b in zip(ours.parameters(), nets.parameters()): torch.testing.assert_close(a, b)
    (_, together), = train_lockstep([t])
    assert together == pytest.approx(losses, rel=3e-3)
    assert seen[0] == p.lr and (min(seen) < p.lr) == (decay > 0)

@every
def test_bfloat16_rounds_products_and_nothing_else(name, pool, tiny):
    "Alone and in lockstep; weights, answers and losses stay in float32, and it gives the same again."
    def trained(precision): return train_round(Training(pool, replace(tiny, steps=5, learner=name, precision=precision), 0, 0))
    (a, values), (b, others), (c, _) = map(trained, ('float32', 'bfloat16', 'bfloat16'))
    assert others == pytest.approx(values, rel=.05, abs=.002) and others != values
    assert all(torch.equal(v, weights(c)[n]) for n,v in weights(b).items())
    assert {w.dtype for w in b.parameters()} == {torch.float32} == {v.dtype for v in predict(b, LEARNERS[name], pool.x[:9]).values()}
    (_, together), = train_lockstep([Training(pool, replace(tiny, steps=5, learner=name, precision='bfloat16'), 0, 0)])
    assert together == pytest.approx(others, rel=.05, abs=.002)

@every
def test_each_phase_moves_its_own_nets_only(name, pool, tiny):
    learner = LEARNERS[name]
    assert ''.join(k for k,n in LETTERS.items() if n in learner.nets) == NAMES[name]
    for phase in learner.phases:
        nets = fresh_nets(learner, first(pool, tiny))
        before = weights(nets)
        def params(ph): return [w for n in ph.trains for w in nets[n].parameters()]
        opts = [adam(params(ph), tiny) if ph is phase else torch.optim.SGD(params(ph), lr=0.) for ph in learner.phases]      # the others stand still
        for batch in draw(first(pool, tiny)).batches(pool.x): train_step(nets, learner, opts, tiny, {**TERMS, **elbo_terms(tiny.elbo)}, batch)
        assert {n for n,w in weights(nets).items() if not torch.equal(w, before[n])} == set(phase.trains)

def test_vaal_trains_the_same_classifier_as_no_vae_at_all(pool, tiny):
    "T and VAE share nothing in VAAL: one seed, one classifier."
    got = {}
    for name in ('classifier', 'vaal', 'm2_vaal'):
        nets = fresh_nets(LEARNERS[name], first(pool, tiny))
        train(nets, LEARNERS[name], tiny, pool.x, draw(first(pool, tiny)))
        got[name] = weights(nets)['classifier']
    assert torch.equal(got['classifier'], got['vaal']) and not torch.equal(got['classifier'], got['m2_vaal'])

@every
def test_scores_in_eval_mode_without_gradients(name, pool, tiny):
    learner = LEARNERS[name]
    nets = fresh_nets(learner, first(pool, tiny)).train()
    view, d_L = view_pool(nets, learner, pool, tiny)
    assert not any(m.training for m in nets.modules()) and not view.p_N_C.requires_grad
    assert (view.ids == pool.unlabelled).all() and (view.y_L == pool.y).all()
    assert torch.allclose(view.p_N_C.sum(-1), torch.ones(len(view)))
    told = {f for f in ('z_N_D', 'z_L_D', 'd_N', 'r_N') if getattr(view, f) is not None}
    assert told == ({'z_N_D', 'z_L_D'} if 'E' in NAMES[name] else set()) | ({'d_N'} if 'D' in NAMES[name] else set()) | ({'r_N'} if 'R' in NAMES[name] else set())

@every
def test_from_scratch_means_from_scratch(name, pool, tiny):
    nets = fresh_nets(LEARNERS[name], first(pool, tiny, round=1))
    fresh = weights(nets)
    train(nets, LEARNERS[name], tiny, pool.x, draw(first(pool, tiny, round=1)))
    again = weights(fresh_nets(LEARNERS[name], first(pool, tiny, round=1)))
    assert all(torch.equal(again[n], fresh[n]) for n in fresh)

def test_warmup_comes_before_and_changes_no_draw_of_one_run_without(pool, tiny):
    p = replace(tiny, warmup_steps=3)
    assert [b.progress for b in draw(first(pool, p)).batches(pool.x, 3)] == [0, 0, 0, 0, .5]
    assert torch.equal(draw(first(pool, tiny)).eps[0], draw(first(pool, p)).eps[0])

@pytest.mark.parametrize('elbo', ['bernoulli', 'gaussian', 'published'])
def test_every_scale_trains(elbo, pool, tiny):
    t = first(pool, tiny)
    losses = train(fresh_nets(LEARNERS['m2_vaal'], t), LEARNERS['m2_vaal'], replace(tiny, elbo=elbo), pool.x, draw(t))
    assert all(np.isfinite(v) for v in losses.values())

# --- runs ---
@pytest.mark.parametrize('method', PAPERS_METHODS)
def test_a_run_keeps_the_contract_of_the_log(method, few, tiny, tmp_path):
    p = protocol_for(tiny, method)
    lines = list(run(Job(p, method, 3), tmp_path, 'cpu', few))
    text = (tmp_path/f'{method}-3.jsonl').read_text()
    assert [json.loads(l) for l in text.splitlines()] == lines and 'NaN' not in text
    assert [l['n_labelled'] for l in lines] == [20, 28, 32] and [len(l['queried']) for l in lines] == [8, 4, 0]
    pool, val = start_pool(few, p, 3)
    assert lines[0]['initial'] == pool.labelled.tolist() and lines[0]['classes'] == list(few.classes)
    n_test = np.bincount(few.y_test, minlength=10)
    assert lines[1].keys() == lines[0].keys() - {'initial', 'classes', 'test_class_n'} and lines[0]['test_class_n'] == n_test.tolist()
    share = n_test/n_test.sum()
    for i,l in enumerate(lines):
        assert {'protocol', 'method', 'seed', 'round', 'n_labelled', 'train_loss', 'test_acc', 'val_acc', 'queried', 'queried_wrong', 'queried_classes',
                'd_acc', 'd_auc', 'versions', 'host', 'timing'} <= l.keys()
        assert np.isclose(np.dot(share, [a or 0 for a in l['test_class_acc']]), l['test_acc'])
        assert l['round'] == i and l['protocol'] == json.loads(json.dumps(asdict(p)))
        assert l['queried_classes'] == np.bincount(few.y[l['queried']], minlength=10).tolist() and 0 <= l['queried_wrong'] <= len(l['queried'])
        assert (l['d_acc'] is None) == ('discriminator' not in LEARNERS[p.learner].nets) == (l['d_auc'] is None)
        pool = pool.reveal(l['queried'])          # raises when an id is bought twice or is not in the pool
    assert not np.isin(pool.labelled, val).any()

def test_round_0_is_the_same_for_every_sampler(few, tiny, tmp_path):
    first = [next(run(Job(protocol_for(tiny, m), m, 0), tmp_path, 'cpu', few)) for m in ('random', 'margin', 'entropy')]
    for k in ('initial', 'train_loss', 'test_acc', 'val_acc'): assert first[0][k] == first[1][k] == first[2][k]

def test_a_pool_bought_to_the_last_image(few, tiny, tmp_path):
    small = replace(few, x=few.x[:60], y=few.y[:60])
    for method in ('margin', 'm2_vaal_no_adv', 'algorithm_2'):
        p = protocol_for(replace(tiny, n_val=20, max_labels=40, budget=15), method)
        lines = list(run(Job(p, method, 0), tmp_path, 'cpu', small))
        assert [l['n_labelled'] for l in lines] == [20, 35, 40] and lines[-1]['d_auc'] is None

@every
def test_nets_see_images_where_the_nets_are(name, few, pool, tiny):
    "PyTorch's `meta`, which knows shapes but no numbers, stands in for a GPU: all works there until numbers are asked for."
    learner = LEARNERS[name]
    nets = fresh_nets(learner, first(pool, tiny)).to('meta')
    asked = [lambda: predict(nets, learner, few.x_test[:9], block=4), lambda: accuracy(nets, learner, few.x_test[:9], few.y_test[:9]),
             lambda: predict(nets, learner, few.x_test[:0]), lambda: view_pool(nets, learner, pool, tiny)]
    if 'decoder' in learner.nets: asked.append(lambda: reconstruct(nets, learner, few.x_test[:9]))
    for ask in asked:
        with pytest.raises(NotImplementedError, match='Cannot copy out of meta tensor'): ask()
