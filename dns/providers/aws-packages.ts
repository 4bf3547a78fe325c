// The part of Amazon's packages that is used. They are large, so this module is loaded on demand.

export {
  ChangeResourceRecordSetsCommand,
  GetChangeCommand,
  ListHostedZonesByNameCommand,
  ListResourceRecordSetsCommand,
  Route53Client,
} from '@aws-sdk/client-route-53';
export { SignatureV4 } from '@smithy/signature-v4';
