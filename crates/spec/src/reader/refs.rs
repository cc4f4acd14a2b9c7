//! Fields that name stages and models.
//! Owns the check that a name exists and makes what is expected; refuses to know the order of stages.

use crate::cell::{Pinned, split_product};
use crate::diagnostic::{Code, Diagnostic};
use crate::index::StageEntry;
use crate::names::{ModelName, Product, StageName, TableKind};
use crate::reader::{Fields, Read, Reader, StageRead};
use crate::span::Located;
use crate::stage::train::Start;
use crate::stage::{ModelRef, StageProduct, TableRef};
use crate::suggest::nearest;
use crate::tree::{Node, Value};

impl Fields<'_, '_> {
    /// A stage that makes a table of this kind.
    pub(crate) fn table(&mut self, key: &'static str, expected: TableKind) -> Option<Located<TableRef>> {
        self.required_with(key, |node, reader| reader.table(node, expected))
    }

    /// One table of any kind, or a list of them.
    pub(crate) fn tables(&mut self, key: &'static str) -> Option<Located<Vec<Located<TableRef>>>> {
        self.required_with(key, |node, reader| {
            let items = match &node.value {
                Value::List(items) if items.is_empty() => return reader.out_of_range(node, "at least one stage"),
                Value::List(items) => items.as_slice(),
                _ => std::slice::from_ref(node),
            };
            let read: Vec<_> =
                items.iter().map(|item| Some(Located::at(reader.table(item, TableKind::Any)?, item.span))).collect();
            read.into_iter().collect()
        })
    }

    /// A model, or a stage that makes one.
    pub(crate) fn model(&mut self, key: &'static str) -> Option<Located<ModelRef>> {
        self.required_with(key, |node, reader| reader.model(node))
    }

    /// As [`Fields::model`], for a key that may be left out.
    pub(crate) fn optional_model(&mut self, key: &'static str) -> Option<Located<ModelRef>> {
        let entry = self.entry(key).filter(|entry| !matches!(entry.value.value, Value::Null))?;
        self.read(entry, |node, reader| reader.model(node))
    }

    /// What training starts from: a model, or `{ init: FOLDER }`.
    pub(crate) fn start(&mut self, key: &'static str) -> Option<Located<Start>> {
        self.required_with(key, |node, reader| match &node.value {
            Value::Map(_) => {
                let mut fields = Fields::open(node, reader)?;
                let folder = fields.required::<String>("init");
                fields.finish();
                Some(Start::Init(folder?.value))
            }
            _ => reader.model(node).map(Start::Model),
        })
    }
}

impl Reader<'_> {
    /// A stage, or `stage.product`, that makes a table `expected` accepts.
    fn table(&mut self, node: &Node, expected: TableKind) -> Option<TableRef> {
        let text = match &node.value {
            Value::Str(_) => String::read(node, self)?,
            _ => return self.wrong_type(node, "the name of a stage, a text"),
        };
        let (name, product) = split_product(&text);
        let pinned = self.pinned(node, name)?;
        let name = pinned.base.as_str();
        let Some(stage) = self.index.stage(name) else {
            return self.unknown_stage(node, name, expected);
        };
        // A stage whose kind cannot be told has its fault reported where it stands.
        let products = stage.kind?.products();
        let found = match product {
            None => products.first().copied(),
            Some(wanted) => products.iter().copied().find(|made| made.name() == wanted),
        };
        let Some(found) = found else {
            let made = products.iter().map(|made| match made.comes_first() {
                true => format!("`{name}`"),
                false => format!("`{name}.{}`", made.name()),
            });
            let made: Vec<String> = made.collect();
            let message = format!("{} reads `{text}`, which `{name}` does not make", self.whereabouts());
            let fault = Diagnostic::new(Code::UnknownName, node.span, message);
            self.report(fault.help(format!("it makes {}", made.join(" and "))));
            return None;
        };
        match found {
            Product::Table(kind) if accepts(expected, kind) => {
                let name = if found.comes_first() { pinned.to_string() } else { format!("{pinned}.{}", found.name()) };
                let stage = self.reads(node, pinned);
                Some(TableRef { made: StageProduct { stage, product: found }, name })
            }
            _ => self.wrong_product(node, &text, stage, found, Product::Table(expected)),
        }
    }

    /// A name of the `models` table, or a stage that makes a checkpoint.
    fn model(&mut self, node: &Node) -> Option<ModelRef> {
        let Value::Str(text) = &node.value else {
            return self.wrong_type(node, "the name of a model or of a `train` stage, a text");
        };
        if self.index.model(text).is_some() {
            return Some(ModelRef::Model(ModelName::new(text)));
        }
        let (name, product) = split_product(text);
        let product = product.unwrap_or("checkpoint");
        let pinned = self.pinned(node, name)?;
        let Some(stage) = self.index.stage(&pinned.base) else {
            return self.unknown_model(node, text, &pinned.base);
        };
        let products = stage.kind?.products();
        match products.iter().find(|made| **made == Product::Checkpoint) {
            Some(_) if product == "checkpoint" => Some(ModelRef::Stage(self.reads(node, pinned))),
            _ => {
                let found = products.iter().copied().find(|made| made.name() == product);
                let found = found.or(products.first().copied())?;
                self.wrong_product(node, text, stage, found, Product::Checkpoint)
            }
        }
    }

    /// A name, taken apart.
    fn pinned(&mut self, node: &Node, name: &str) -> Option<Pinned> {
        let error = match Pinned::parse(name) {
            Ok(pinned) => return Some(pinned),
            Err(error) => error,
        };
        let fault = Diagnostic::new(Code::BadName, node.span, format!("{}: {error}", self.whereabouts()));
        self.report(fault.help("a cell of a matrix is named as in `tuned[lr=1e-3,beta=10]`"));
        None
    }

    /// Notes that a stage is read, and gives the stage that is meant in this cell.
    fn reads(&mut self, node: &Node, pinned: Pinned) -> StageName {
        let cell = self.cells.and_then(|cells| cells.get(&pinned)).cloned();
        let stage = cell.unwrap_or_else(|| StageName::new(&pinned.base));
        let (whereabouts, only_in_tests) = (self.whereabouts(), self.in_tests);
        let read = StageRead { pinned, place: node.span, whereabouts, only_in_tests };
        match self.reads.iter_mut().find(|earlier| earlier.pinned == read.pinned) {
            // The stage's own reading of it is the one that faults are shown at.
            Some(earlier) if earlier.only_in_tests && !only_in_tests => *earlier = read,
            Some(_) => {}
            None => self.reads.push(read),
        }
        stage
    }

    fn unknown_stage(&mut self, node: &Node, name: &str, expected: TableKind) -> Option<TableRef> {
        let message = format!("{} reads `{name}`, which no stage makes", self.whereabouts());
        let mut fault = Diagnostic::new(Code::UnknownName, node.span, message);
        fault.help = match nearest(name, self.index.stages().map(|stage| stage.name.as_str())) {
            Some(near) => {
                self.index.stage(near).map(|stage| format!("did you mean `{near}` (line {})?", stage.span.line))
            }
            None if self.index.model(name).is_some() => Some(format!("`{name}` is a model, not a stage")),
            None => self.makers(Product::Table(expected)),
        };
        self.report(fault);
        None
    }

    fn unknown_model(&mut self, node: &Node, text: &str, name: &str) -> Option<ModelRef> {
        let message = format!("{} names `{text}`, which is neither a model nor a stage", self.whereabouts());
        let mut fault = Diagnostic::new(Code::UnknownName, node.span, message);
        let known = self.index.models().map(|model| model.name.as_str());
        fault.help = match nearest(name, known.chain(self.index.stages().map(|stage| stage.name.as_str()))) {
            Some(near) => Some(format!("did you mean `{near}`?")),
            None if text.contains('/') => {
                Some("give the folder a name under `models`, and write that name here".to_owned())
            }
            None => {
                let known: Vec<&str> = self.index.models().map(|model| model.name.as_str()).collect();
                (!known.is_empty()).then(|| format!("the models are {}", known.join(", ")))
            }
        };
        self.report(fault);
        None
    }

    fn wrong_product<T>(
        &mut self,
        node: &Node,
        text: &str,
        stage: &StageEntry,
        found: Product,
        expected: Product,
    ) -> Option<T> {
        let message = format!("{} reads `{text}`, which is {found}, where {expected} is expected", self.whereabouts());
        let mut fault = Diagnostic::new(Code::WrongProduct, node.span, message);
        let products = stage.kind.map_or([].as_slice(), |kind| kind.products());
        let fitting = products.iter().find(|made| fits(expected, **made));
        fault.help = match fitting {
            Some(made) if made.comes_first() => Some(format!("`{}` would do", stage.name)),
            Some(made) => Some(format!("`{}.{}` would do", stage.name, made.name())),
            None => self.makers(expected),
        };
        self.report(fault);
        None
    }

    /// The names that could stand where `expected` is expected.
    fn makers(&self, expected: Product) -> Option<String> {
        const MAX_NAMED: usize = 4;
        let models = self.index.models().filter(|_| expected == Product::Checkpoint);
        let models = models.map(|model| format!("`{}` (line {})", model.name, model.span.line));
        let stages = self.index.stages().filter(|stage| {
            let made = stage.kind.and_then(|kind| kind.products().first().copied());
            let certain = made == Some(expected) || expected == Product::Table(TableKind::Any);
            certain && made.is_some_and(|made| fits(expected, made)) && !self.is_stage(&stage.name)
        });
        let stages = stages.map(|stage| format!("`{}` (line {})", stage.name, stage.span.line));
        let makers: Vec<String> = models.chain(stages).take(MAX_NAMED).collect();
        match makers.as_slice() {
            [] => Some(format!("no stage makes {expected}")),
            [one] => Some(format!("{one} would do")),
            many => Some(format!("one of {} would do", many.join(", "))),
        }
    }
}

/// Whether a table of kind `found` may stand where `expected` is read. What a query makes shows when it has run.
fn accepts(expected: TableKind, found: TableKind) -> bool {
    expected == found || expected == TableKind::Any || found == TableKind::Any
}

fn fits(expected: Product, found: Product) -> bool {
    match (expected, found) {
        (Product::Table(expected), Product::Table(found)) => accepts(expected, found),
        (Product::Checkpoint, Product::Checkpoint) => true,
        _ => false,
    }
}
