// Package lambdahost runs a Lambda function's own binary the way Lambda does: through the Runtime API, one invocation
// at a time per process, frozen in between.
package lambdahost
