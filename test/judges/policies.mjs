// Asks iam-simulate about each request given on standard input, [{policy, resource, account, time, resourcePolicy?}]: may it be
// made?
import { readFileSync } from 'node:fs'
import { runSimulation } from '@cloud-copilot/iam-simulate'

const requests = JSON.parse(readFileSync(0, 'utf8'))
const verdicts = requests.map(async ({ policy, resourcePolicy, resource, account, time }) => {
  const [, partition] = resource.split(':')
  const answer = await runSimulation({
    request: {
      principal: `arn:${partition}:iam::${account}:user/caller`,
      action: 'execute-api:Invoke',
      resource: { resource, accountId: account },
      contextVariables: { 'aws:CurrentTime': time },
    },
    identityPolicies: [{ name: 'authorizer', policy }],
    resourcePolicy,
    serviceControlPolicies: [],
    resourceControlPolicies: [],
  }, {})
  return answer.overallResult ?? `error: ${answer.errors.message}`
})
console.log(JSON.stringify(await Promise.all(verdicts)))
