// Written from Zuplo's documentation and not run against Zuplo.
import { JwtServicePlugin, RuntimeExtensions } from "@zuplo/runtime";

// The gateway becomes an issuer: https://DEPLOYMENT.zuplo.app/__zuplo/issuer, whose keys are at
// /.well-known/jwks.json below it.
export function runtimeInit(runtime: RuntimeExtensions) {
  runtime.addPlugin(new JwtServicePlugin());
}
