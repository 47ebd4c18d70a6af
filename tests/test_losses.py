"Nets, passes and loss terms against brute force, finite differences and the truth."
import math
from dataclasses import replace
from functools import partial
import pytest, torch
from torch import nn
from torch.distributions import Normal
from torch.nn import functional as F
from conftest import PAPERS_LEARNERS
from m2vaal_nb.losses import (ELBO, LEARNERS, TERMS, adversarial, bernoulli_nll, class_prior, classification,
    discriminator_loss, elbo_terms, gaussian_nll, kl, kl_std_normal, kl_summed, marginal_reconstruction, ranking,
    reconstruction, squared_error)
from m2vaal_nb.models import (CONV, NETS, SIZES, Batch, Body, Decoder, Deconv, Discriminator, Encoder, HalfOut, Images,
    Out, autoencode, condition_on_probs, cut, discriminate, autoencode_adversarially, halved, make_nets,
    marginalise, n_params)

B, U, C, D, SHAPE = 6, 4, 10, 32, (1, 28, 28)

@pytest.fixture
def batch():
    torch.manual_seed(0)
    labelled = Images(torch.rand(B, *SHAPE), torch.randn(B, D), torch.randint(C, (B,)))
    return Batch(labelled, Images(torch.rand(U, *SHAPE), torch.randn(U, D)))

# --- nets ---
@pytest.mark.parametrize('n', range(4, 33))
def test_a_convolution_halves(n):
    assert nn.Conv2d(1, 1, **CONV)(torch.zeros(1, 1, n, n)).shape[-1] == halved(n)

@pytest.mark.parametrize('c,h,w', [(1, 7, 7), (3, 8, 5), (2, 1, 1)])
def test_deconv_is_a_transposed_convolution(c, h, w):
    ours, theirs = (cls(16, c, **CONV, output_padding=(0, 1)) for cls in (Deconv, nn.ConvTranspose2d))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 16, h, w)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)

@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('shape', [(1, 28, 28), (3, 32, 32), (1, 27, 30), (4, 5, 9), (1, 4, 4)])
def test_the_decoder_draws_what_the_encoder_reads(shape, size):
    code = torch.cat(Encoder(shape, SIZES[size], 7)(torch.rand(2, *shape)), -1)
    assert Decoder(shape, SIZES[size], 14)(code).shape == (2, *shape)

@pytest.mark.parametrize('shape', [(1, 28, 3), (1, 3, 9), (3, 1, 1)])
def test_images_that_are_too_small(shape):
    for make in (lambda: Body(shape, SIZES['small']), lambda: Encoder(shape, SIZES['small'], 7)):
        with pytest.raises(ValueError, match='at least 4 × 4'): make()

def test_weights_of_the_discriminator_by_hand():
    assert n_params(Discriminator(42)) == 512*(42+1) + 512*(512+1) + 512+1

@pytest.mark.parametrize('v', [None, (), torch.arange(5), (torch.ones(5, 2), None), ((torch.ones(5),), torch.zeros(5))])
@pytest.mark.parametrize('n', [0, 2, 5])
def test_cut(v, n):
    def joined(a, b):
        if a is None: return None
        return tuple(joined(*o) for o in zip(a, b)) if isinstance(a, tuple) else torch.cat([a, b])
    def equal(a, b):
        if isinstance(a, tuple): return len(a) == len(b) and all(equal(*o) for o in zip(a, b))
        return a is b is None or torch.equal(a, b)
    assert equal(joined(*cut(v, n)), v)

# --- passes ---
def test_the_discriminator_learns_the_same_from_reused_scores(batch):
    nets = make_nets(NETS, SHAPE, C, n_extra=C)
    out = autoencode_adversarially(nets, batch, condition_on_probs)
    anew = discriminate(nets, batch, before=autoencode(nets, batch, condition_on_probs))
    def gradients(o):
        loss = o.L.d.mean() + o.U.d.square().mean()
        return torch.autograd.grad(loss, nets['discriminator'].parameters(), retain_graph=True)
    for a,b in zip(gradients(out), gradients(anew)): torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)

WHO_LEARNS = dict( # as the paper has it; the ranker teaches the classifier for the first 60% of the steps
    classifier=dict(classification='classifier'),
    vaal=dict(classification='classifier', reconstruction='encoder decoder', kl='encoder',
              adversarial='encoder discriminator', discriminator='discriminator'),
    ta_vaal=dict(classification='classifier', ranking='classifier ranker', reconstruction='encoder decoder',
                 kl='encoder', adversarial='encoder discriminator', discriminator='discriminator'),
    m2_vaal=dict(classification='classifier', reconstruction='classifier encoder decoder', kl='encoder',
                 adversarial='classifier encoder discriminator', discriminator='discriminator'),
    m2_vaal_no_adv=dict(classification='classifier', reconstruction='classifier encoder decoder', kl='encoder',
                        discriminator='discriminator'),
    m2=dict(classification='classifier', marginal_reconstruction='classifier encoder decoder', kl='encoder',
            class_prior='classifier'))

@pytest.mark.parametrize('name', PAPERS_LEARNERS)
@pytest.mark.parametrize('progress', [0., .59, .6, 1.])
def test_who_learns_from_what(name, progress, batch):
    learner, b = LEARNERS[name], replace(batch, progress=progress)
    nets = make_nets(NETS, SHAPE, C, C if learner.n_extra == 'classes' else learner.n_extra)
    terms, out, found = {**TERMS, **elbo_terms('bernoulli')}, None, {}
    for phase in learner.phases:
        out = phase.forward(nets, b, learner.condition, out)
        stepping = [(n, p) for n in NETS for p in nets[n].parameters()]
        for t in phase.terms:
            # Eq. 6 and 7 share their scores; in the discriminator's own phase only its weights step
            of = [(n, p) for n,p in stepping if t != 'discriminator' or n in phase.trains]
            grads = torch.autograd.grad(terms[t](out, b), [p for _,p in of], retain_graph=True, allow_unused=True)
            got = {n for (n, _),g in zip(of, grads) if g is not None and g.any()}
            found[t] = ' '.join(n for n in NETS if n in got)
    want = dict(WHO_LEARNS[name])
    if 'ranking' in want and progress >= .6: want['ranking'] = 'ranker'
    assert found == want

# --- terms ---
@pytest.mark.parametrize('n', [2, 3, 5, 8])
def test_ranking_against_pairs(n):
    logits, y, r = torch.randn(n, C), torch.randint(C, (n,)), torch.randn(n)
    loss = F.cross_entropy(logits, y, reduction='none')
    pairs = [F.softplus(-(r[i] - r[n-1-i])*(1 if loss[i] > loss[n-1-i] else -1)) for i in range(n//2)]
    found = ranking(Out(HalfOut(logits=logits, rank=r)), Batch(Images(torch.zeros(n, *SHAPE), y=y)))
    torch.testing.assert_close(found, sum(pairs)/len(pairs))

two = lambda *s: (torch.randn(s), torch.randn(s))
GRADIENTS = [
    (classification, dict(logits=two(3, 2))), (adversarial, dict(d=two(3))), (discriminator_loss, dict(d=two(3))),
    (kl, dict(mu=two(3, 2), logvar=two(3, 2))), (kl_summed, dict(mu=two(3, 2), logvar=two(3, 2))),
    (class_prior, dict(logits=two(3, 2))),
    *((partial(reconstruction, nll=f), dict(pix=two(3, 1, 2, 2))) for f in (bernoulli_nll, gaussian_nll, squared_error)),
    (marginal_reconstruction, dict(logits=two(3, 2), pix=(torch.randn(3, 1, 2, 2), torch.randn(2, 3, 1, 2, 2))))]

@pytest.mark.parametrize('term,fields', GRADIENTS)
def test_gradients_against_finite_differences(term, fields):
    "In double precision, over the fields of the labelled and the unlabelled half."
    leaves = {k: tuple(v.double().detach().requires_grad_() for v in vs) for k,vs in fields.items()}
    x = torch.rand(2, 3, 1, 2, 2).double()
    b = Batch(Images(x[0], y=torch.tensor([1, 0, 1])), Images(x[1]))
    def f(*flat):
        vals = iter(flat)
        halves = [HalfOut(**{k: next(vals) for k in leaves}) for _ in range(2)]
        return term(Out(*halves), b)
    assert torch.autograd.gradcheck(f, [v[i] for i in range(2) for v in leaves.values()])

def test_presets_are_all_of_the_bound():
    assert set(ELBO) == {'bernoulli', 'gaussian', 'published'}
    assert set(elbo_terms('published')) == {'reconstruction', 'marginal_reconstruction', 'kl'}

# --- the M2 model's bound against the truth: one latent dimension, two classes, four pixels ---
torch.manual_seed(0)
W, X4 = torch.randn(3, 4), torch.rand(1, 1, 2, 2).round()
def toy_decoder(code): return (code @ W).unflatten(-1, (1, 2, 2))
def blind(code): return toy_decoder(torch.cat([0*code[:,:1], code[:,1:]], -1))      # ignores z

def log_px(decoder):
    "log p(x), by summing over classes and a grid of z."
    grid, log_joint = torch.linspace(-8, 8, 4001), []
    for y in torch.eye(2):
        code = torch.cat([grid[:,None], y.expand(len(grid), 2)], -1)
        log_joint.append(-bernoulli_nll(decoder(code), X4)*4 + Normal(0., 1.).log_prob(grid) + math.log(.5))
    return torch.logsumexp(torch.stack(log_joint), (0, 1)) + math.log(16/4000)

def minus_U(decoder, q_logits, n=20_000):
    "The bound of an unlabelled image, in nats: what our terms are worth, less the labelled half."
    def zeros(x): return torch.zeros(len(x), 1)
    toy = dict(classifier=lambda x: (q_logits.expand(len(x), 2), None), encoder=lambda x: (zeros(x), zeros(x)), decoder=decoder)
    half = Images(X4.expand(n, 1, 2, 2), torch.randn(n, 1), torch.zeros(n, dtype=torch.long))
    b = Batch(half, half)
    out = marginalise(toy, b)
    both = marginal_reconstruction(out, b) + kl(out, b) + class_prior(out, b)
    divergence = kl_std_normal(out.L.mu, out.L.logvar).mean()
    labelled = bernoulli_nll(out.L.pix, half.x).mean() + divergence/4 + math.log(2)/4
    return -4*(both - labelled)

def test_the_bound_stays_below_the_truth():
    assert minus_U(toy_decoder, torch.zeros(1, 2)) < log_px(toy_decoder)

def test_the_bound_touches_the_truth_at_the_exact_posterior():
    code = torch.cat([torch.zeros(2, 1), torch.eye(2)], -1)
    posterior = -bernoulli_nll(blind(code), X4)*4
    torch.testing.assert_close(minus_U(blind, posterior[None]), log_px(blind), rtol=0, atol=1e-3)
