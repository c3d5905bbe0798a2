// Command bench compares this repository's authorizer, as it is deployed, with authorizers written with the libraries
// that one would else use, and with a function that verifies nothing. All of them are run by local/lambdahost, one
// invocation at a time, in rounds in which each has its turn. It writes docs/performance.md.
package main
