"""Every helper of zod 4, as it is written."""

from __future__ import annotations

TEXTS = (
    *("email()", "email({ pattern: z.regexes.html5Email })", "email({ pattern: z.regexes.unicodeEmail })"),
    *("email().max(50)", "uuid()", *(f'uuid({{ version: "v{number}" }})' for number in range(1, 9))),
    *(
        "uuidv4()",
        "uuidv6()",
        "uuidv7()",
        "guid()",
        "url()",
        "httpUrl()",
        "hostname()",
        "emoji()",
        "nanoid()",
        "cuid()",
    ),
    *("cuid2()", "ulid()", "xid()", "ksuid()", "ipv4()", "ipv6()", "mac()", 'mac({ delimiter: "-" })', "cidrv4()"),
    *("cidrv6()", "base64()"),
    *("base64url()", "jwt()", "e164()", "hex()", "creditCard()", "iban()", "currencyCode()"),
    *("iso.date()", "iso.time()", "iso.time({ precision: -1 })", "iso.datetime()", "iso.datetime({ offset: true })"),
    *("iso.datetime({ local: true })", "iso.datetime({ precision: 3 })", "iso.duration()"),
    *(f'hash("{name}")' for name in ("md5", "sha1", "sha256", "sha384", "sha512")),
    *('hash("sha256", { enc: "base64" })', 'hash("sha256", { enc: "base64url" })'),
    *('templateLiteral(["id-", z.int(), "-", z.enum(["a", "b"])])', "templateLiteral([z.email()])"),
    *('stringFormat("cool", /^[a-z]+$/)', "string()", "string().min(2).max(5)", "string().length(5)"),
    *(
        "string().regex(/^a+$/)",
        'string().startsWith("ab.")',
        'string().endsWith("z$")',
        'string().includes("x(y")',
        'string().includes("a").includes("b")',
    ),
    *(
        "string().lowercase()",
        "string().uppercase()",
        "string().trim()",
        "string().toLowerCase()",
        "string().normalize()",
    ),
    *('string().startsWith("a").endsWith("b").min(3).max(9)', "string().regex(/^a/).regex(/b/).regex(/c$/)"),
    *("string().slugify()", "string().nonempty()", 'url().startsWith("https://").max(60)', "stringbool()"),
)
NUMBERS = (
    *("number()", "int()", "int32()", "uint32()", "float32()", "float64()", "int64()", "uint64()", "bigint()", "nan()"),
    *("number().int()", "number().positive()", "number().nonnegative()", "number().min(1).max(9.5)"),
    *("number().multipleOf(0.1)", "int().multipleOf(7)", "number().gt(0).lt(1)", "number().multipleOf(0.3)"),
)
OBJECTS = (
    *("object({ a: z.string(), b: z.number().optional() })", "strictObject({ a: z.string() })"),
    *("looseObject({ a: z.string() })", "object({ a: z.string() }).catchall(z.number())"),
    *("object({ a: z.string(), b: z.int() }).partial()", "object({ a: z.string() }).extend({ b: z.int() })"),
    *("object({ a: z.string().nullish() })", 'object({ a: z.string().default("x"), b: z.string().prefault("y") })'),
    *('object({ a: z.string().catch("z") })', "object({ a: z.exactOptional(z.string()) })"),
    *("object({ a: z.never().optional() })", "object({ a: z.string() }).keyof()"),
    *("record(z.string(), z.number())", 'record(z.enum(["a", "b"]), z.number())'),
    'record(z.union([z.literal("a"), z.literal("b")]), z.number())',
    *('partialRecord(z.enum(["a", "b"]), z.number())', "record(z.string().regex(/^x/), z.number())"),
    *(
        "record(z.uuid(), z.number())",
        "record(z.number(), z.string())",
        "looseRecord(z.string().regex(/^x/), z.number())",
    ),
    *("tuple([z.string(), z.number()])", "tuple([z.string()], z.boolean())", "array(z.string()).min(1).max(3)"),
    *("array(z.string()).nonempty()", "array(z.int()).length(2)", "set(z.string())", "map(z.string(), z.string())"),
)
OTHERS = (
    *("boolean()", "null()", "any()", "unknown()", "never()", "undefined()", "void()", "date()", "symbol()", "file()"),
    *('literal("a")', 'literal(["a", 1, null, true])', 'enum(["a", "b"])', 'nativeEnum({ A: 1, B: "x" })'),
    *("string().nullable()", "array(z.string()).readonly()", 'string().brand("x")', "string().pipe(z.string().min(3))"),
    *(
        "union([z.string(), z.int()])",
        "xor([z.string(), z.number()])",
        "json()",
        "coerce.number()",
        "promise(z.string())",
    ),
    'discriminatedUnion("t", [z.object({ t: z.literal("a") }), z.object({ t: z.literal("b"), n: z.int() })])',
    "intersection(z.object({ a: z.string() }), z.object({ b: z.string() }))",
    *("string().transform((text) => text.length)", "codec(z.iso.datetime(), z.date(), {})", "custom(() => true)"),
    *("instanceof(Date)", "string().refine((text) => text.length > 3)", "function()"),
    "lazy(() => z.object({ value: z.int(), next: z.null() }))",
    "object({ v: z.int(), more: z.array(z.json()) })",
    'object({ a: z.string().meta({ id: "A", title: "T" }), b: z.string().meta({ examples: ["q"] }) })',
)
KINDS = tuple(f"z.{code}" for code in (*TEXTS, *NUMBERS, *OBJECTS, *OTHERS))

MORE_THAN_IT_WRITES = frozenset(
    f"z.{code}"
    for code in (
        *(
            "httpUrl()",
            "creditCard()",
            "iban()",
            "stringbool()",
            "string().toLowerCase()",
            "string().slugify()",
            "file()",
        ),
        *("string().refine((text) => text.length > 3)", "promise(z.string())"),
        'url().startsWith("https://").max(60)',
    )
)
"""What zod checks of a value and does not write into its JSON Schema."""
