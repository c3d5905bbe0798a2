"""Signs the claims given on standard input with joserfc: once with the key that goes into the key set, once with another."""

import json
import sys

from joserfc import jwk, jwt

KEYS = {"EdDSA": ("OKP", "Ed25519"), "ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"), "ES512": ("EC", "P-521")}

asked = json.load(sys.stdin)
keys, tokens = [], {}
for alg in asked["algorithms"]:
    ours, other = (jwk.generate_key(*KEYS.get(alg, ("RSA", 2048)), {"kid": alg, "alg": alg, "use": "sig"}) for _ in range(2))
    good, foreign = (jwt.encode({"alg": alg, "kid": alg}, asked["claims"], key, algorithms=[alg]) for key in (ours, other))
    keys.append(ours.as_dict(private=False))
    tokens[alg] = {"good": good, "foreign": foreign}
json.dump({"jwks": {"keys": keys}, "tokens": tokens}, sys.stdout)
