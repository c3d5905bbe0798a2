// Package zuplo stands in for Zuplo: an API gateway that takes API keys and calls its upstream with a JWT of its own,
// and the issuer of that JWT. It signs with golang-jwt, every other byte of a token is its own.
package zuplo
