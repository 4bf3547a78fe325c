// What is used of Amazon's own packages: large, and so a module of its own that is loaded on demand.

export {
  ChangeResourceRecordSetsCommand,
  GetChangeCommand,
  ListHostedZonesByNameCommand,
  ListResourceRecordSetsCommand,
  Route53Client,
} from '@aws-sdk/client-route-53';
export { SignatureV4 } from '@smithy/signature-v4';
