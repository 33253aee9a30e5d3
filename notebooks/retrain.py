# %% [markdown]
"""
# Retrain the risk model

What the model learns from, how it is fitted, and what it would have caught. The history is made up
by the project's own generator: the figures say how the parts work together, not how the world is.
`purser risk train` fits the same model and keeps it, signed, where the API looks for it.
"""

# %%
import numpy as np
from sklearn.metrics import average_precision_score

from risk_model.features import NAMES
from risk_model.fitting import fit, strengths
from risk_model.frauds import PATTERNS
from risk_model.generator import generate
from risk_model.serving import REASONS
from risk_model.thresholds import OUTCOMES, expected_losses

# %% tags=["parameters"]
payments = 12_000
seed = 1

# %% [markdown]
# ## The history
#
# Payments in order of time. A fraud has the instant at which it happened and a later one at which
# it became known; a feature may read it only from then on.

# %%
history = generate(payments, seed=seed)
days = (history.at[-1] - history.at[0]) / 86_400
print(
    f"{len(history):,} payments in {days:.0f} days, {history.is_fraud.mean():.1%} of them frauds\n"
)
print(f"{'pattern':<26}{'payments':>9}{'median amount':>15}{'known after':>13}")
for number, name in enumerate(PATTERNS):
    of_pattern = history.pattern == number
    amount = np.median(history.hundredths[of_pattern]) / 100 if of_pattern.any() else 0.0
    delay = history.known_at[of_pattern] - history.at[of_pattern]
    known = f"{np.median(delay) / 86_400:.1f} days" if number and of_pattern.any() else ""
    print(f"{name:<26}{of_pattern.sum():>9,}{amount:>15,.2f}{known:>13}")

# %% [markdown]
# ## Features and fit
#
# `fit` replays the history through the profiles that the path of a payment uses, then grows the
# trees on its first part, calibrates and chooses the thresholds on the second, and judges on the
# third.

# %%
fitted = fit(history, seed=seed)
print(f"{fitted.rows.shape[1]} features; {len(fitted.trained):,} payments to train,")
print(f"{len(fitted.calibrated):,} to calibrate, {len(fitted.held_out):,} held out\n")
for name, value in fitted.metrics.items():
    print(f"{name:<20}{value:>12,.4f}")

# %% [markdown]
# ## What it catches
#
# Among the payments that nothing was chosen on: the share of each pattern that would have been
# challenged, reviewed or blocked. Friendly frauds look like any other payment, and should.

# %%
held_out = history.taken(fitted.held_out)
rows = fitted.rows[fitted.held_out]
probabilities = fitted.probabilities(rows)
outcomes = strengths(probabilities, held_out.hundredths / 100, fitted.policy)
print(f"{'pattern':<26}{'payments':>9}" + "".join(f"{outcome:>11}" for outcome in OUTCOMES))
for number, name in enumerate(PATTERNS):
    of_pattern = outcomes[held_out.pattern == number]
    if len(of_pattern):
        shares = [f"{np.mean(of_pattern == place):>11.1%}" for place in range(len(OUTCOMES))]
        print(f"{name:<26}{len(of_pattern):>9,}" + "".join(shares))

# %% [markdown]
# ## What it costs
#
# Each payment gets the outcome with the least expected loss, within the floors that keep genuine
# payers from being asked too often. Example costs; yours stand in the manifest.

# %%
print(fitted.policy, "\n")
print(f"{'amount':>8}  {'probability at which each outcome begins'}")
for amount in (10.0, 50.0, 200.0, 1_000.0, 5_000.0):
    steps = [fitted.policy.outcome(step / 1_000, amount) for step in range(1_001)]
    begins = {outcome: steps.index(outcome) / 1_000 for outcome in OUTCOMES if outcome in steps}
    print(f"{amount:>8,.0f}  " + "  ".join(f"{name} {p:.3f}" for name, p in begins.items()))

amounts = held_out.hundredths / 100
lost_by_allowing = float(np.sum(amounts[held_out.is_fraud == 1]))
lost = sum(
    expected_losses(fitted.policy.costs, float(fraud), float(amount))[place]
    for fraud, amount, place in zip(held_out.is_fraud, amounts, outcomes, strict=True)
)
print(f"\nlost by allowing everything {lost_by_allowing:,.0f}, with these outcomes {lost:,.0f}")

# %% [markdown]
# ## What it looks at
#
# How far the average precision falls when all features of one reason are shuffled among the
# payments.

# %%
chance = np.random.default_rng(seed)
whole = average_precision_score(held_out.is_fraud, probabilities)
falls = {}
for reason, names in REASONS.items():
    shuffled = rows.copy()
    places = [NAMES.index(name) for name in names]
    shuffled[:, places] = rows[chance.permutation(len(rows))][:, places]
    falls[reason] = whole - average_precision_score(
        held_out.is_fraud, fitted.probabilities(shuffled)
    )
for reason, fall in sorted(falls.items(), key=lambda each: -each[1]):
    print(f"{reason:<28}{fall:>8.3f}  " + "#" * max(0, round(fall * 100)))
