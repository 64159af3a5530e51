//! From values to what specs hold: text, sizes, time spans, references; with exact errors.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::str::FromStr;

use kiln_model::canonical::BuiltFrom;
use kiln_model::name::{ComponentId, Kind};
use kiln_model::quantity::{Bytes, InvalidQuantity, MilliCpu, Millis};
use kiln_model::text::{Part, Text};

use crate::diagnostic::{Diagnostic, Diagnostics, nearest};
use crate::syntax::ast::{Expr, ExprKind};
use crate::syntax::span::Span;
use crate::value::convert::convert;
use crate::value::secret::{SecretPart, SecretText};
use crate::value::{Component, Data, Number, Type, Value};

/// Where errors go while a stack is evaluated.
pub(super) type Sink = RefCell<Diagnostics>;

/// A value, the name of the setting that it is for, and where it was written.
///
/// Every reading method reports what does not fit and returns `None` then.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    owner: Option<&'a Field<'a>>,
    step: Step<'a>,
    value: &'a Value,
    /// The expression, as long as it is a constructor whose parts have places of their own.
    expr: Option<&'a Expr>,
    span: Span,
    /// Whether it stands in something sensitive, or is so itself.
    hidden: bool,
    sink: &'a Sink,
    /// Where the places of sensitive values are noted, if they are allowed.
    marks: Option<&'a Marks>,
}

/// What leads to a setting.
#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Name(&'a str),
    Position(usize),
}

/// Where in a spec values stand that are not to be shown: an attribute, or an entry of `env` or
/// `labels`, as in `env.TOKEN`.
pub(super) type Marks = RefCell<BTreeSet<String>>;

impl<'a> Field<'a> {
    /// The value of the attribute `name`, which `expr` yielded.
    pub(super) fn new(name: &'a str, value: &'a Value, expr: &'a Expr, sink: &'a Sink) -> Self {
        let (span, hidden) = (expr.span, value.is_sensitive());
        let step = Step::Name(name);
        Self { owner: None, step, value, expr: Some(expr), span, hidden, sink, marks: None }
    }

    /// The same for a setting that may be sensitive: `marks` takes note of it.
    pub(super) fn marked(self, marks: &'a Marks) -> Self {
        Self { marks: Some(marks), ..self }
    }

    /// What is not to be shown because of this value.
    fn mark(&self) -> String {
        match self.owner {
            Some(owner) if owner.owner.is_some() => owner.mark(),
            Some(owner) if matches!(owner.name(), "env" | "labels") => self.path(),
            Some(owner) => owner.name().to_owned(),
            None => self.name().to_owned(),
        }
    }

    pub(super) fn span(&self) -> Span {
        self.span
    }

    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    /// The setting as it is written: `health.http.port`.
    pub(super) fn path(&self) -> String {
        match (self.owner, self.step) {
            (None, _) => self.name().to_owned(),
            (Some(owner), Step::Name(name)) => format!("{}.{name}", owner.path()),
            (Some(owner), Step::Position(index)) => format!("{}[{index}]", owner.path()),
        }
    }

    /// The last name of the setting; an element of a list has none.
    pub(super) fn name(&self) -> &'a str {
        match self.step {
            Step::Name(name) => name,
            Step::Position(_) => "",
        }
    }

    pub(super) fn report(&self, diagnostic: Diagnostic) {
        self.sink.borrow_mut().push(diagnostic);
    }

    /// Reports that the value is not `expected`.
    pub(super) fn refuse<T>(&self, expected: &str) -> Option<T> {
        self.report(self.refusal(expected));
        None
    }

    pub(super) fn refusal(&self, expected: &str) -> Diagnostic {
        let summary = format!("`{}` must be {expected}", self.path());
        Diagnostic::error(self.span, summary).with_label(format!("found {}", self.found()))
    }

    /// The value as messages show it.
    fn found(&self) -> String {
        const LONGEST_SHOWN: usize = 60;
        match self.value.data() {
            _ if self.is_hidden() => "a sensitive value".into(),
            Data::String(text) if text.chars().count() <= LONGEST_SHOWN => format!("{text:?}"),
            Data::Number(number) => number.to_string(),
            Data::Bool(value) => value.to_string(),
            _ => self.value.describe(),
        }
    }

    fn is_hidden(&self) -> bool {
        self.hidden || self.value.contains_sensitive()
    }

    /// Whether the value may stand in a spec: known and without secrets, which are
    /// [`Self::text`]'s, and sensitive only where that is noted.
    fn is_plain(&self) -> bool {
        if let Some(reason) = self.value.first_unknown() {
            self.report_unknown(&reason.to_string());
            return false;
        }
        if let Some(secret) = self.value.first_secret() {
            let summary = format!("`{}` cannot hold a secret", self.path());
            self.report(
                Diagnostic::error(self.span, summary)
                    .with_label(format!("holds secret.{}", secret.secret))
                    .with_help(
                        "secrets may stand in a server's `env`, `command` and `args`, and as the \
                         `key` of an endpoint's `tls`",
                    ),
            );
            return false;
        }
        if !self.is_hidden() {
            return true;
        }
        if let Some(marks) = self.marks {
            marks.borrow_mut().insert(self.mark());
            return true;
        }
        self.report_sensitive("it would be shown");
        false
    }

    fn report_sensitive(&self, why: &str) {
        let summary = format!("`{}` cannot be sensitive", self.path());
        self.report(Diagnostic::error(self.span, summary).with_label(why));
    }

    /// Whether the value itself may be looked into: known and not sensitive.
    pub(super) fn is_open(&self) -> bool {
        if let Some(reason) = self.value.unknown_reason() {
            self.report_unknown(&reason.to_string());
            return false;
        }
        if !self.hidden {
            return true;
        }
        self.report_sensitive("names and number of what it makes would give it away");
        false
    }

    fn report_unknown(&self, reason: &str) {
        let summary = format!("`{}` must be known before apply", self.path());
        let label = format!("not known: {reason}");
        self.report(Diagnostic::error(self.span, summary).with_label(label));
    }

    /// A string that may be sensitive, for the value of a secret.
    pub(super) fn sensitive_string(&self) -> Option<String> {
        if let Some(secret) = self.value.first_secret() {
            let summary = "a secret cannot be made of another one";
            let label = format!("holds secret.{}", secret.secret);
            self.report(Diagnostic::error(self.span, summary).with_label(label));
            return None;
        }
        let open = self.value.clone().without_sensitive()?;
        Field { value: &open, hidden: false, ..*self }.string()
    }

    /// The value converted to a primitive type.
    fn primitive(&self, ty: &Type, expected: &str) -> Option<Value> {
        if !self.is_plain() {
            return None;
        }
        match convert(self.value, ty) {
            Ok(value) if !value.is_null() => Some(value),
            _ => self.refuse(expected),
        }
    }

    pub(super) fn string(&self) -> Option<String> {
        self.string_as("a string")
    }

    fn string_as(&self, expected: &str) -> Option<String> {
        let value = self.primitive(&Type::String, expected)?;
        value.as_str().map(str::to_owned)
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        self.primitive(&Type::Bool, "true or false")?.as_bool()
    }

    /// A whole number within the bounds.
    pub(super) fn integer<T>(&self, bounds: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + std::fmt::Display,
    {
        let expected = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let value = self.primitive(&Type::Number, &expected)?;
        let number = value.as_number().and_then(Number::to_i64);
        match number.and_then(|number| T::try_from(number).ok()) {
            Some(number) if bounds.contains(&number) => Some(number),
            _ => self.refuse(&expected),
        }
    }

    pub(super) fn port(&self) -> Option<u16> {
        self.integer(1..=u16::MAX)
    }

    pub(super) fn bytes(&self, bounds: RangeInclusive<Bytes>) -> Option<Bytes> {
        self.quantity(bounds)
    }

    pub(super) fn millis(&self, bounds: RangeInclusive<Millis>) -> Option<Millis> {
        self.quantity(bounds)
    }

    fn quantity<T>(&self, bounds: RangeInclusive<T>) -> Option<T>
    where
        T: FromStr<Err = InvalidQuantity> + PartialOrd + std::fmt::Display,
    {
        let text = self.string_as("a size or time span as a string")?;
        match T::from_str(&text) {
            Ok(quantity) if bounds.contains(&quantity) => Some(quantity),
            Ok(_) => self.refuse(&format!("between {} and {}", bounds.start(), bounds.end())),
            Err(error) => {
                let (what, how) = error.expected.split_once(": ").unwrap_or((error.expected, ""));
                self.report(self.refusal(what).with_help(format!("write {how}")));
                None
            }
        }
    }

    /// A number in thousandths; finer ones are rounded.
    pub(super) fn thousandths(&self, bounds: RangeInclusive<u64>, expected: &str) -> Option<u64> {
        self.scaled(1000, bounds, expected)
    }

    /// A number that need not be whole, times `factor` and rounded, within bounds.
    pub(super) fn scaled(
        &self,
        factor: u32,
        bounds: RangeInclusive<u64>,
        expected: &str,
    ) -> Option<u64> {
        let value = self.primitive(&Type::Number, expected)?;
        let scaled = value.as_number().and_then(|number| {
            let half = Number::from(1_i64).div(&Number::from(2_i64)).ok()?;
            let scaled = number.mul(&Number::from(i64::from(factor))).ok()?;
            u64::try_from(scaled.add(&half).ok()?.floor().ok()?.to_i64()?).ok()
        });
        match scaled {
            Some(scaled) if bounds.contains(&scaled) => Some(scaled),
            _ => self.refuse(expected),
        }
    }

    /// A share of processors: `0.5`, `2`; thousandths are the finest.
    pub(super) fn cpu(&self) -> Option<MilliCpu> {
        const EXPECTED: &str = "a number of processors from 0.01 to 1024, such as 0.5";
        let thousandths = self.thousandths(10..=1_024_000, EXPECTED)?;
        u32::try_from(thousandths).ok().map(MilliCpu)
    }

    /// Text that may hold secrets.
    pub(super) fn text(&self) -> Option<Text> {
        if let Data::Secret(secret) = self.value.data() {
            return self.template(secret);
        }
        self.string().map(Text::Plain)
    }

    fn template(&self, secret: &SecretText) -> Option<Text> {
        let mut parts = Vec::with_capacity(secret.parts().len());
        for part in secret.parts() {
            parts.push(match part {
                SecretPart::Literal(text) => Part::Literal(text.to_string()),
                SecretPart::Secret(version, escapes) if escapes.is_empty() => {
                    Part::Secret(ComponentId::new(Kind::Secret, &*version.secret).into())
                }
                SecretPart::Secret(version, _) => {
                    let summary = format!("secret.{} cannot be escaped here yet", version.secret);
                    self.report(
                        Diagnostic::error(self.span, summary)
                            .with_label("escaped by jsonencode or urlencode")
                            .with_help("give the program the secret in a variable of its own"),
                    );
                    return None;
                }
            });
        }
        Some(Text::Template(parts))
    }

    /// The elements of a list, set or tuple.
    pub(super) fn elements(&self) -> Option<Vec<Field<'_>>> {
        let Some(elements) = self.value.as_elements() else { return self.refuse("a list") };
        let exprs = match self.expr.map(|expr| &expr.kind) {
            Some(ExprKind::Tuple(exprs)) if exprs.len() == elements.len() => Some(exprs),
            _ => None,
        };
        let fields = elements.iter().enumerate().map(|(index, value)| {
            let expr = exprs.map(|exprs| &exprs[index]);
            self.part(Step::Position(index), value, expr)
        });
        Some(fields.collect())
    }

    /// The entries of a map or object, in the order of their keys.
    pub(super) fn entries(&self) -> Option<Vec<Field<'_>>> {
        let Some(entries) = self.value.as_entries() else {
            return self.refuse("an object, such as { name = value }");
        };
        let fields = entries
            .iter()
            .map(|(key, value)| self.part(Step::Name(key), value, self.item_expr(key)));
        Some(fields.collect())
    }

    fn part<'s>(&'s self, step: Step<'s>, value: &'s Value, expr: Option<&'s Expr>) -> Field<'s> {
        let span = expr.map_or(self.span, |expr| expr.span);
        let hidden = self.hidden || value.is_sensitive();
        let (sink, marks) = (self.sink, self.marks);
        Field { owner: Some(self), step, value, expr, span, hidden, sink, marks }
    }

    fn item_expr(&self, key: &str) -> Option<&'a Expr> {
        let ExprKind::Object(items) = &self.expr?.kind else { return None };
        let item = items
            .iter()
            .find(|item| matches!(&item.key.kind, ExprKind::String(name) if &**name == key));
        item.map(|item| &item.value)
    }

    /// The entries of an object with fixed keys; others are reported. Null entries are left out.
    pub(super) fn settings(&self, known: &[&'static str]) -> Option<Settings<'_>> {
        let fields = self.entries()?;
        let mut settings = Vec::with_capacity(fields.len());
        for field in fields {
            if known.contains(&field.name()) {
                if !field.value.is_null() {
                    settings.push(field);
                }
                continue;
            }
            let summary = format!("unknown setting `{}`", field.path());
            let diagnostic = Diagnostic::error(field.span, summary);
            self.report(match nearest(field.name(), known.iter().copied()) {
                Some(near) => diagnostic.with_help(format!("did you mean `{near}`?")),
                None => diagnostic.with_help(format!("the settings are {}", known.join(", "))),
            });
        }
        Some(Settings { fields: settings })
    }

    pub(super) fn strings(&self) -> Option<Vec<String>> {
        self.elements()?.iter().map(Field::string).collect()
    }

    pub(super) fn texts(&self) -> Option<Vec<Text>> {
        self.elements()?.iter().map(Field::text).collect()
    }

    pub(super) fn string_map(&self) -> Option<BTreeMap<String, String>> {
        self.map_of(|field| field.string())
    }

    pub(super) fn text_map(&self) -> Option<BTreeMap<String, Text>> {
        self.map_of(|field| field.text())
    }

    /// A map; entries that are null are left out.
    pub(super) fn map_of<T>(
        &self,
        read: impl Fn(&Field<'_>) -> Option<T>,
    ) -> Option<BTreeMap<String, T>> {
        let fields = self.entries()?;
        let present = fields.iter().filter(|field| !field.value.is_null());
        // Not lazily: each wrong entry is to be reported.
        let read: Vec<Option<(String, T)>> =
            present.map(|field| Some((field.name().to_owned(), read(field)?))).collect();
        read.into_iter().collect()
    }

    /// A reference to one component of one of these kinds.
    pub(super) fn component(&self, kinds: &[Kind], example: &str) -> Option<ComponentId> {
        let Some(component) = self.value.as_component() else {
            let refusal = self.refusal(&format!("a reference such as {example}"));
            self.report(match self.value.data() {
                Data::String(_) => refusal.with_help("references are written without quotes"),
                Data::Tuple(_) | Data::Object(_) => {
                    refusal.with_help("it stands for several: name one, such as server.web[0]")
                }
                _ => refusal,
            });
            return None;
        };
        match component_id(component).filter(|id| kinds.contains(&id.kind)) {
            Some(id) => Some(id),
            None => self.refuse(&format!("a reference such as {example}")),
        }
    }

    /// References to components of one of these kinds, however deep in lists and maps.
    pub(super) fn components(
        &self,
        kinds: &[Kind],
        example: &str,
    ) -> Option<Vec<(ComponentId, Span)>> {
        if self.value.as_elements().is_some() {
            let parts = self.elements()?;
            let found: Vec<_> = parts.iter().map(|part| part.components(kinds, example)).collect();
            return Some(found.into_iter().collect::<Option<Vec<_>>>()?.concat());
        }
        if self.value.as_entries().is_some() {
            let parts = self.entries()?;
            let found: Vec<_> = parts.iter().map(|part| part.components(kinds, example)).collect();
            return Some(found.into_iter().collect::<Option<Vec<_>>>()?.concat());
        }
        Some(vec![(self.component(kinds, example)?, self.span)])
    }

    pub(super) fn built_from(&self, kind: Kind, example: &str) -> Option<BuiltFrom> {
        self.component(&[kind], example).map(BuiltFrom::from)
    }
}

/// The entries of an object with fixed keys.
pub(super) struct Settings<'a> {
    fields: Vec<Field<'a>>,
}

impl<'a> Settings<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&Field<'a>> {
        self.fields.iter().find(|field| field.name() == name)
    }

    /// The names that are set, of these.
    pub(super) fn set_of(&self, names: &[&str]) -> Vec<&Field<'a>> {
        self.fields.iter().filter(|field| names.contains(&field.name())).collect()
    }

    /// What `read` makes of the setting, or the default where it is not set.
    pub(super) fn read_or<T>(
        &self,
        name: &str,
        default: T,
        read: impl FnOnce(&Field<'a>) -> Option<T>,
    ) -> Option<T> {
        match self.get(name) {
            Some(field) => read(field),
            None => Some(default),
        }
    }
}

/// The id of a component in the model: what `count` and `for_each` made has its key in its name.
pub(super) fn component_id(component: &Component) -> Option<ComponentId> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == &*component.kind)?;
    Some(match component.instance {
        None => ComponentId::new(kind, &*component.name),
        Some(_) => ComponentId::new(kind, component.to_string().split_once('.')?.1),
    })
}
