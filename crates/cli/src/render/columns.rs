//! Aligned columns. Owns widths and padding; refuses to know what the cells mean.

use crate::render::paint::{Ink, Paint};

/// Which side of its column a cell leans on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Rows of cells under a header.
pub struct Columns {
    aligns: Vec<Align>,
    rows: Vec<Vec<(String, Ink)>>,
}

impl Columns {
    /// Columns without a header.
    pub fn new(aligns: &[Align]) -> Columns {
        Columns { aligns: aligns.to_vec(), rows: Vec::new() }
    }

    /// Columns whose first row names them.
    pub fn headed(columns: &[(&str, Align)]) -> Columns {
        let aligns: Vec<Align> = columns.iter().map(|(_, align)| *align).collect();
        let mut table = Columns::new(&aligns);
        let header = columns.iter().map(|(name, _)| ((*name).to_owned(), Ink::Dim));
        table.rows.push(header.collect());
        table
    }

    /// Adds a row; cells that are missing at its end stay empty.
    pub fn row<const N: usize>(&mut self, cells: [(String, Ink); N]) {
        self.line_of(cells);
    }

    /// Adds a row whose length is known only when the program runs.
    pub fn line_of(&mut self, cells: impl IntoIterator<Item = (String, Ink)>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The rows as lines, two spaces between columns, no spaces at the end of a line.
    pub fn lines(&self, paint: Paint) -> Vec<String> {
        let widths: Vec<usize> = (0..self.aligns.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|(text, _)| text.chars().count()).max().unwrap_or(0)
            })
            .collect();
        self.rows.iter().map(|row| self.line(row, &widths, paint)).collect()
    }

    /// The lines, each ended.
    pub fn render(&self, paint: Paint) -> String {
        self.lines(paint).into_iter().map(|line| line + "\n").collect()
    }

    fn line(&self, row: &[(String, Ink)], widths: &[usize], paint: Paint) -> String {
        let mut line = String::new();
        // Spaces are written only once something follows them.
        let mut owed = 0;
        for (index, ((text, ink), width)) in row.iter().zip(widths).enumerate() {
            if index > 0 {
                owed += 2;
            }
            let gap = width - text.chars().count();
            let align = self.aligns[index];
            if align == Align::Right {
                owed += gap;
            }
            if !text.is_empty() {
                line.extend(std::iter::repeat_n(' ', std::mem::take(&mut owed)));
                line += &paint.ink(*ink, text);
            }
            if align == Align::Left {
                owed += gap;
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn numbers_lean_right_and_lines_end_where_their_text_does() {
        let mut table = Columns::headed(&[("stage", Align::Left), ("rows", Align::Right), ("why", Align::Left)]);
        let plain = |text: &str| (text.to_owned(), Ink::Plain);
        table.row([plain("prompts"), plain("4,000"), plain("")]);
        table.row([plain("pairs"), plain("12"), plain("ties drop → first")]);
        expect![[r#"
            stage     rows  why
            prompts  4,000
            pairs       12  ties drop → first
        "#]]
        .assert_eq(&table.render(Paint::OFF));
    }
}
