"""Expressions as people write them, and as nobody should be allowed to."""

from __future__ import annotations

from itertools import product

LEGITIMATE = """
a
-a
+a
- -a
a + b - c
a - b + c * i / j
a - (b + c)
a / b / c
a * b / c * i
i % j
i DIV j
(i + j) % 7
-a * b
-(a * b)
- a - - b
1e-3 * a
1.5 * a
.5 + a
2L * i
3S + i
1.5D * a
2.0F * a
1.0BD * a
-2.5 * log10(a) + 25
g_mag - 5 * log10(distance / 10) - 2.986 * ebv
`B-V` - 0.3 * `E(B-V)`
a + `odd ``name`
1000 / parallax
5 + 5 * log10(parallax / 1000)
log(a)
log(2, a)
log2(a) + ln(b) + log1p(c) + log10(a)
exp(a) + expm1(b)
sqrt(a) + cbrt(b) + pow(a, 2) + power(b, 0.5)
sqrt(pow(pmra, 2) + pow(pmdec, 2))
hypot(pmra, pmdec)
abs(a - b)
sign(a) * signum(b)
round(a, 2) + bround(b, 1) + rint(c)
floor(a) + ceil(b) + ceiling(c)
greatest(a, b, c) - least(a, b, c)
pmod(i, 24) + mod(i, 7)
sin(radians(a)) * cos(radians(b))
degrees(atan2(a, b)) + asin(c) + acos(c) + atan(a)
sinh(a) + cosh(b) + tanh(c)
pi() * e()
coalesce(a, b, 0)
nvl(a, 0) + ifnull(b, 1) + nvl2(c, 1, 0)
nullif(a, -9999)
nanvl(a, b)
if(a > 1, b, c)
IF(a IS NULL, 0, a)
case when a > 1 then b when a > 0 then c else 0 end
CASE WHEN a > 30 THEN NULL ELSE a END
case i when 1 then a when 2 then b end
cast(a as float)
CAST(s AS DOUBLE)
cast(i as bigint) + cast(a as int)
cast(a as decimal(10, 2))
cast(i as string) = '1'
a::double
s::int
double(s) + float(s) + int(s) + bigint(s)
try_cast(s as double)
a = b
a == b
a <> b
a != b
a < b
a <= b
a > b
a >= b
a <=> b
a is null
a is not null
not a is null
a is distinct from b
a is not distinct from b
flag
not flag
!flag
flag is true
flag is not true
flag and a > 1
flag or a > 1 and b > 2
not flag and a > 1
not (flag and a > 1)
! flag or a = b
a > 1 and b > 1 and c > 1 or flag
a between 1 and 2
a not between 1 and 2
a between b and c and flag
i in (1, 2, 3)
i not in (1, 2)
s in ('x', 'y')
s = 'x'
s = "x"
s = 'it\\'s'
s = 'a\\'b'
s = r'a\\d'
s like 'VAR%'
s not like '%x_'
s rlike '^[A-Z]+$'
i & 4 = 0
(i & 4) = 0 and (j | 1) > 2
i & j & 3
(i ^ j) | 1
~i
i + 1 & 3
i << 2
shiftleft(i, 2) + shiftright(i, 1)
bit_count(i) > 2
getbit(i, 3) = 1
(repairs & 63) = 0
length(s) > 3
substring(s, 1, 2) = 'ab'
substr(s, 2) = 'b'
upper(trim(s)) = 'X' or lower(s) = 'y'
startswith(s, 'a') or endswith(s, 'b') or contains(s, 'c')
concat(s, '_', s) = 'a_a'
replace(s, 'a', 'b') = 'b'
xs[0]
xs[i] + 1
m['k']
st.u
st.u + st.v
element_at(xs, 1)
element_at(m, 'k')
size(xs) > 2
array_max(xs) - array_min(xs)
array_contains(xs, 1.5)
transform(xs, x -> x / a)[0]
aggregate(xs, 0D, (acc, x) -> acc + x)
filter(xs, x -> x > 1)[0]
exists(xs, x -> x > 1)
forall(xs, x -> x is not null)
year(t) + month(t) / 12
map('a', 1.0, 'b', 2.0)[s]
'(select 1)' = s
st.`u` + `select`
reflectance + table_flux
datediff(d, to_date(t))
true
NULL
a /* of two */ + b
a -- and the rest
a + b /* ' */
a > -1
a = -1.5e3
(a)
((a + b))
((a) - (b)) * (c)
""".strip().splitlines()

_PAYLOADS = (
    "reflect('java.lang.System', 'exit', 1)",
    "java_method('java.lang.System', 'exit', 1)",
    "try_reflect('java.lang.System', 'getenv')",
    "IDENTIFIER('reflect')('java.lang.System', 'exit', 1)",
    "identifier('re' || 'flect')('java.lang.System', 'exit', 1)",
    "`reflect`('java.lang.System', 'exit', 1)",
    "REFLECT ( 'java.lang.System' , 'exit' , 1 )",
    "reflect/**/('java.lang.System', 'exit', 1)",
    "system.builtin.reflect('a', 'b')",
    "(select max(value) from text.`/etc/passwd`)",
    "(SELECT 1 FROM csv.`/etc/passwd`)",
    "exists(select 1 from text.`/etc/passwd`)",
    "(from text.`/etc/passwd`)",
    "(table t)",
    "(values (1))",
    "(with x as (select 1) select * from x)",
    "a in (select value from text.`/etc/passwd`)",
    "(map a using 'sh')",
    "(reduce a using 'sh')",
    "transform(a) using 'sh'",
    "(select transform(a) using 'sh')",
    "read_files('/etc/passwd')",
    "input_file_name()",
    "current_user()",
    "session_user",
    "uuid()",
    "rand()",
    "current_timestamp()",
    "raise_error('x')",
    "assert_true(false)",
    "java_method ('a','b')",
    "aes_decrypt(a, b)",
    "from_json(s, 'a int')",
    "xpath(s, '/x')",
    "parse_url(s, 'HOST')",
    "url_decode(s)",
    "sequence(1, 2000000000)",
    "repeat('x', 2000000000)",
    "array_repeat(a, 2000000000)",
    "lpad(s, 2000000000, 'x')",
    "space(2000000000)",
    "explode(xs)",
    "stack(2, 1, 2)",
    "inline(xs)",
    "count(*)",
    "sum(a) over ()",
    "max(a)",
    "monotonically_increasing_id()",
    "spark_partition_id()",
    "version()",
    "schema_of_json('{}')",
    "to_csv(st)",
    "python_udf(a)",
    "call_function('reflect')",
    "a |> where b",
    "getattr(a, 'b')",
    "http_get('http://x')",
    "try_variant_get(a, 'b')",
    "collect_list(a)",
    "st.*",
    "*",
    "system.builtin.java_method('java.lang.System', 'getenv')",
    "a in (-- hidden\n select 1)",
    "(from t |> limit 1)",
    "current_date",
    "`current_user`",
)
_WRAPPERS = (
    "{}", "a + {}", "({})", "coalesce({}, 1)", "case when {} then 1 end", "/* ' */ {} /* ' */", "-- '\n{}",
    "a = r'\\' or {} = '\\''", "cast({} as double)", "xs[{}]", "if({}, 1, 2)", "transform(xs, x -> {})",
)  # fmt: skip
HOSTILE = [wrapper.format(payload) for payload, wrapper in product(_PAYLOADS, _WRAPPERS)]
