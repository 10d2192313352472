//! Tables in columns, as istioctl prints them: cells on the left, five spaces between columns.

/// The space between columns.
const GAP: usize = 5;

/// Writes rows of cells as columns; the first row is the head. Each line ends without spaces of ours.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    spaced(rows, GAP)
}

/// The same with three spaces between columns, where istioctl has them.
pub(crate) fn narrow(rows: &[Vec<String>]) -> String {
    spaced(rows, 3)
}

fn spaced(rows: &[Vec<String>], gap: usize) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                let padding = widths[column] + gap - cell.chars().count();
                text.extend(std::iter::repeat_n(' ', padding));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_heads() {
        let rows = [["NAME", "STATUS"], ["a", "OK"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(columns(&rows), "NAME     STATUS\na        OK\n");
    }
}
