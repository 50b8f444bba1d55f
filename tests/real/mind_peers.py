"""River and plain Keras on the MIND impressions, with the features of `model.py`: one pass in time order.

Each row is scored before it is learned. Keras has the same network with its own embeddings and learns from batches of
64, River learns from each row. Of the rates tried for each, the best (AUC, log loss):

    springtide      0.7200  0.1513    tests/real/test_mind.py
    plain Keras     0.7048  0.1532    Adagrad, one rate for all
    River           0.7049  0.1536    logistic regression, FTRL; factorization machine 0.6881 0.1557
    Vowpal Wabbit   0.688   0.1560

    python -m tests.real.mind_peers keras
    python -m tests.real.mind_peers river     # in an environment with river
"""

import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd

from tests.real.command import REPO
from tests.support.reference.ranking import area_under_curve

SOURCE = REPO.parent / "shared" / "data" / "mind" / "impressions.csv.gz"
BATCH = 64
RATES = (0.1, 0.2, 0.4, 0.8)
_POSITIONS = (0, 1, 2, 3, 4, 6, 8, 11, 16, 22, 31, 44, 62, 88, 124, 176)
_LIST_SIZES = (2, 4, 6, 8, 11, 16, 22, 31, 44, 62, 88, 124, 176, 248)
_CLICK_RATE_LOGIT = -3.2


def features_and_clicks() -> tuple[pd.DataFrame, np.ndarray]:
    """(the five features of each row, clicks [n])."""
    rows = pd.read_csv(SOURCE)
    sizes = rows.groupby("impression_id")["item"].transform("size")
    features = {
        "item": rows["item"],
        "user": rows["user"],
        "hour": rows["ts"] // 3600 % 24,
        "pos": np.searchsorted(_POSITIONS, rows["pos"], side="right"),
        "list_size": np.searchsorted(_LIST_SIZES, sizes, side="right"),
    }
    return pd.DataFrame(features), rows["click"].to_numpy()


def river() -> Iterator[tuple[str, np.ndarray]]:
    """(name, probability of a click of each row)."""
    from river import facto, linear_model, optim

    features, clicks = features_and_clicks()
    rows = [{f"{n}={v}": 1.0 for n, v in row.items()} for row in features.to_dict("records")]
    models = {f"logistic regression, FTRL {rate}": optim.FTRLProximal(rate, 1, 0, 0) for rate in RATES}
    models |= {f"logistic regression, Adagrad {rate}": optim.AdaGrad(rate) for rate in (0.05, *RATES)}
    learners = {n: linear_model.LogisticRegression(o, intercept_init=_CLICK_RATE_LOGIT) for n, o in models.items()}
    learners["factorization machine"] = facto.FMClassifier(
        4, optim.AdaGrad(0.1), optim.AdaGrad(0.05), sample_normalization=False, seed=1
    )
    for name, learner in learners.items():
        scores = np.empty(len(rows))
        for i, (row, click) in enumerate(zip(rows, clicks, strict=True)):
            scores[i] = learner.predict_proba_one(row).get(True, 0.5)
            learner.learn_one(row, bool(click))
        yield f"River, {name}", scores


def plain_keras() -> Iterator[tuple[str, np.ndarray]]:
    """As `river`; the last rows, fewer than a batch, are left out."""
    import keras
    import tensorflow as tf

    features, clicks = features_and_clicks()
    codes = {name: pd.factorize(features[name])[0].astype(np.int64)[:, None] for name in features}
    labels = clicks.astype(np.float32)
    for rate in RATES:
        keras.utils.set_random_seed(1)
        model = _network({name: int(values.max()) + 1 for name, values in codes.items()})
        optimizer = keras.optimizers.Adagrad(rate)
        optimizer.build(model.trainable_variables)

        @tf.function
        def step(rows, clicked, model=model, optimizer=optimizer):
            with tf.GradientTape() as tape:
                logits = model(rows, training=True)[:, 0]
                loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=clicked, logits=logits))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return tf.sigmoid(logits)

        starts = range(0, len(labels) - BATCH + 1, BATCH)
        batches = [{name: tf.constant(values[s : s + BATCH]) for name, values in codes.items()} for s in starts]
        scored = [step(rows, labels[s : s + BATCH]) for rows, s in zip(batches, starts, strict=True)]
        yield f"plain Keras, Adagrad {rate}", np.concatenate(scored).astype(np.float64)


def _network(sizes: dict[str, int]):
    import keras
    from keras import layers

    inputs = {name: keras.Input((1,), name=name, dtype="int64") for name in sizes}

    def rows(name: str, dim: int, initializer: str) -> keras.KerasTensor:
        embedding = layers.Embedding(sizes[name], dim, embeddings_initializer=initializer)
        return layers.Flatten()(embedding(inputs[name]))

    linear = layers.Add()([rows(name, 1, "zeros") for name in sizes])
    deep = layers.Concatenate()([rows(name, 4, "uniform") for name in ("item", "pos", "list_size")])
    for width in (32, 16):
        deep = layers.Dense(width, activation="relu")(deep)
    deep = layers.Dense(1, bias_initializer=keras.initializers.Constant(_CLICK_RATE_LOGIT))(deep)
    return keras.Model(inputs, layers.Add()([linear, deep]))


def main() -> None:
    measured = {"river": river, "keras": plain_keras}[sys.argv[1]]
    _, clicks = features_and_clicks()
    for name, scores in measured():
        labels, scores = clicks[: len(scores)], np.clip(scores, 1e-7, 1 - 1e-7)
        losses = -np.log(np.where(labels == 1, scores, 1 - scores))
        print(f"{name}: AUC {area_under_curve(scores, labels):.4f}, log loss {losses.mean():.4f}", flush=True)


if __name__ == "__main__":
    main()
