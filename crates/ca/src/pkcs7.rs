//! Certificates as EST sends them: CMS signed data without content or signatures (RFC 5652, RFC 8951, section 3.3).

use yasna::Tag;
use yasna::models::ObjectIdentifier;

/// "Certs-only" CMS of certificates in DER.
pub fn certs_only<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut certificates: Vec<&[u8]> = certificates.into_iter().collect();
    // A SET OF is sorted in DER.
    certificates.sort_unstable();
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_oid(&ObjectIdentifier::from_slice(SIGNED_DATA));
            writer.next().write_tagged(Tag::context(0), |writer| {
                writer.write_sequence(|writer| {
                    writer.next().write_u8(1);
                    writer.next().write_set(|_| ());
                    writer.next().write_sequence(|writer| {
                        writer.next().write_oid(&ObjectIdentifier::from_slice(DATA));
                    });
                    writer.next().write_tagged_implicit(Tag::context(0), |writer| {
                        writer.write_sequence(|writer| {
                            certificates.iter().for_each(|der| writer.next().write_der(der));
                        });
                    });
                    writer.next().write_set(|_| ());
                });
            });
        });
    })
}

const SIGNED_DATA: &[u64] = &[1, 2, 840, 113_549, 1, 7, 2];
const DATA: &[u64] = &[1, 2, 840, 113_549, 1, 7, 1];
