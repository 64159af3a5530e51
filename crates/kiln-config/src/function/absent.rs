//! Functions that Terraform has and Kiln has not, and what to use instead.

/// Why a well-known function is not there, and what to do; `None` for any other name.
pub fn why_absent(name: &str) -> Option<(&'static str, &'static str)> {
    const CLOCK: &str = "it reads the clock, and a plan comes out the same whenever it is made";
    const DICE: &str = "its result differs each time, and a plan comes out the same each time";
    Some(match name {
        "timestamp" | "plantimestamp" => (CLOCK, "hand the time in as a variable"),
        "uuid" => (DICE, "use uuidv5, which derives an id from a name"),
        "bcrypt" => (DICE, "hash the password outside and hand the hash in as a secret"),
        "rsadecrypt" => (
            "it needs a private key, and secrets are never read while a stack is evaluated",
            "declare the decrypted text as a secret",
        ),
        "list" => ("it was removed from the language", "write [a, b] or tolist([a, b])"),
        "map" => ("it was removed from the language", "write { a = b } or tomap({ a = b })"),
        "templatestring" => (
            "templates are read from files or written in place",
            "use templatefile, or write the template as a string",
        ),
        "ephemeralasnull" => ("there are no ephemeral values", "use a secret component"),
        _ => return None,
    })
}
