// Signs the claims given on standard input with jose: once with the key that goes into the key set, once with another.
import { readFileSync } from 'node:fs'
import { webcrypto } from 'node:crypto'
import { SignJWT, exportJWK, generateKeyPair } from 'jose'

globalThis.crypto ??= webcrypto // Node 18 has none

const { algorithms, claims } = JSON.parse(readFileSync(0, 'utf8'))
const keys = []
const tokens = {}
for (const alg of algorithms) {
  const [ours, other] = await Promise.all([1, 2].map(() => generateKeyPair(alg, { extractable: true })))
  const sign = ({ privateKey }) => new SignJWT(claims).setProtectedHeader({ alg, kid: alg, typ: 'JWT' }).sign(privateKey)
  keys.push({ ...(await exportJWK(ours.publicKey)), kid: alg, alg, use: 'sig' })
  tokens[alg] = { good: await sign(ours), foreign: await sign(other) }
}
console.log(JSON.stringify({ jwks: { keys }, tokens }))
